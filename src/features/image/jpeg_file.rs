//! A JPEG file taken apart and put together anew, so that the decoder gets what a decoder of cameras' files has to cope with in its
//! plainest form: one start and one end, the tables that every scan needs, nothing that does not matter, restart markers all in
//! their places.
//!
//! The decoder fills what is missing with grey and shows what was shifted as it comes; so the scans of sequential pictures are read
//! here to their last block. What contradicts itself is refused.

use super::jpeg_bits::{Bits, marker_of, segment_of, u16_at};
use super::jpeg_tables::{Huffman, Tables};
use super::{ImageError, ImageLimits, check_size};

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const RESTART: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
/// A marker without a segment that means nothing here.
const TEMPORARY: u8 = 0x01;

/// What an Exif segment begins with (Exif 2.3, 4.7.2), but for a last byte that some write as they like.
const EXIF: &[u8] = b"Exif\0";

/// A file that is whole, and what its pixels do not tell.
pub(super) struct Sound {
    pub(super) bytes: Vec<u8>,
    /// Of the first Exif segment, as viewers have it.
    pub(super) exif: Option<Vec<u8>>,
}

/// One colour of the frame header (T.81 B.2.2).
struct Component {
    id: u8,
    across: usize,
    down: usize,
}

/// The frame header, as far as scans need it.
struct Frame {
    size_px: (usize, usize),
    components: Vec<Component>,
    /// Every block is told in one scan, by Huffman codes: baseline and extended.
    is_sequential: bool,
}

/// What is known of a file up to some marker.
struct Reader<'a> {
    file: &'a [u8],
    limits: &'a ImageLimits,
    tables: Tables,
    frame: Option<Frame>,
    restart_interval: usize,
    /// Whether each colour has been in a scan.
    scanned: [bool; 4],
    sound: Sound,
}

/// Puts a JPEG file together anew.
///
/// # Errors
/// It is cut off, it contradicts itself, or its header promises more than `limits` allow.
pub(super) fn sound(file: &[u8], limits: &ImageLimits) -> Result<Sound, ImageError> {
    let mut bytes = Vec::with_capacity(file.len() + 512);
    bytes.extend([0xff, START_OF_IMAGE]);
    // Cameras leave out what all use (T.81 K.3); a file's own tables follow, and hold then.
    bytes.extend(Tables::standard_segment());
    let mut reader = Reader {
        file,
        limits,
        tables: Tables::standard(),
        frame: None,
        restart_interval: 0,
        scanned: [false; 4],
        sound: Sound { bytes, exif: None },
    };
    let ended = reader.read()?;
    let frame = reader.frame.as_ref().ok_or_else(|| cut_off(file))?;
    let scanned = &reader.scanned[..frame.components.len()];
    // Only of sequential scans is it known here that they are whole.
    let whole = match ended {
        true => scanned.contains(&true),
        false => frame.is_sequential && !scanned.contains(&false),
    };
    if !whole {
        return Err(cut_off(file));
    }
    reader.sound.bytes.extend([0xff, END_OF_IMAGE]);
    Ok(reader.sound)
}

fn cut_off(file: &[u8]) -> ImageError {
    ImageError::Truncated {
        format: "JPEG",
        bytes: file.len(),
    }
}

fn damaged(reason: impl Into<String>) -> ImageError {
    ImageError::Damaged {
        format: "JPEG",
        reason: reason.into(),
    }
}

/// Where the next marker stands, over whatever lies before it, and what follows.
fn next_marker(bytes: &[u8]) -> Option<(usize, u8, &[u8])> {
    let mut at = 0;
    loop {
        at += bytes
            .get(at..)?
            .windows(2)
            .position(|pair| pair[0] == 0xff && pair[1] != 0)?;
        let (marker, rest) = marker_of(&bytes[at..])?;
        if marker != 0 {
            return Some((at, marker, rest));
        }
        at = bytes.len() - rest.len();
    }
}

impl Reader<'_> {
    /// Reads all segments and scans; whether an end marker closes them.
    fn read(&mut self) -> Result<bool, ImageError> {
        let mut rest = &self.file[2..];
        while let Some((_, marker, behind)) = next_marker(rest) {
            rest = behind;
            match marker {
                END_OF_IMAGE => return Ok(true),
                // Some cameras begin twice; behind the size it is the beginning of another picture.
                START_OF_IMAGE if self.frame.is_some() => return Ok(false),
                START_OF_IMAGE | TEMPORARY => continue,
                marker if RESTART.contains(&marker) => continue,
                _ => {}
            }
            let Some((segment, behind)) = segment_of(rest) else {
                return Ok(false);
            };
            rest = behind;
            if !self.segment(marker, segment)? {
                continue;
            }
            let bytes = &mut self.sound.bytes;
            bytes.extend([0xff, marker]);
            bytes.extend((segment.len() as u16 + 2).to_be_bytes());
            bytes.extend(segment);
            if marker == START_OF_SCAN {
                let length = scan_length(rest);
                self.scan(segment, &rest[..length])?;
                rest = &rest[length..];
            }
        }
        Ok(false)
    }

    /// Takes note of a segment; whether the decoder needs it.
    fn segment(&mut self, marker: u8, segment: &[u8]) -> Result<bool, ImageError> {
        match marker {
            0xc4 => self
                .tables
                .add_huffman(segment)
                .ok_or_else(|| damaged("its Huffman tables contradict themselves"))?,
            0xdd => {
                let interval = u16_at(segment, 0);
                let interval =
                    interval.ok_or_else(|| damaged("its restart interval is cut off"))?;
                self.restart_interval = usize::from(interval);
                return Ok(segment.len() == 2);
            }
            // Neither is a frame header: the conditions of arithmetic codes, and what is reserved.
            0xc8 | 0xcc => {}
            0xc0..=0xcf => self.frame(marker, segment)?,
            0xe1 if segment.starts_with(EXIF) && self.sound.exif.is_none() => {
                self.sound.exif = Some(segment.get(EXIF.len() + 1..).unwrap_or_default().to_vec());
                return Ok(false);
            }
            // Adobe's says what the colours are.
            0xee => return Ok(segment.starts_with(b"Adobe")),
            0xe0..=0xef | 0xfe => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn frame(&mut self, marker: u8, segment: &[u8]) -> Result<(), ImageError> {
        let &[_, _, _, _, _, _, ref components @ ..] = segment else {
            return Err(damaged("its frame header is cut off"));
        };
        let side = |at| usize::from(u16_at(segment, at).unwrap_or_default());
        let size_px = (side(3), side(1));
        check_size(size_px.0, size_px.1, self.limits)?;
        if self.frame.is_some() {
            return Err(damaged("it has two frame headers"));
        }
        let component = |&[id, sampling, _]: &[u8; 3]| Component {
            id,
            across: usize::from(sampling >> 4),
            down: usize::from(sampling & 15),
        };
        let components: Vec<_> = components.as_chunks().0.iter().map(component).collect();
        let sampled = |c: &Component| (1..=4).contains(&c.across) && (1..=4).contains(&c.down);
        if !(1..=4).contains(&components.len()) || !components.iter().all(sampled) {
            return Err(damaged("its frame header lists no colours that there are"));
        }
        self.frame = Some(Frame {
            size_px,
            components,
            is_sequential: matches!(marker, 0xc0 | 0xc1),
        });
        Ok(())
    }

    /// Reads the data of a scan, and appends them with the restart markers that belong there.
    fn scan(&mut self, header: &[u8], data: &[u8]) -> Result<(), ImageError> {
        let bad = || damaged("a scan's header does not fit its picture's");
        let frame = self.frame.as_ref().ok_or_else(bad)?;
        let count = header.first().map_or(0, |&count| usize::from(count));
        let selectors = header.get(1..1 + 2 * count).ok_or_else(bad)?;
        let mut coded = Vec::new();
        for &[id, tables] in selectors.as_chunks::<2>().0 {
            let index = frame.components.iter().position(|c| c.id == id);
            let index = index.ok_or_else(bad)?;
            self.scanned[index] = true;
            coded.push((&frame.components[index], tables >> 4, tables & 15));
        }
        let mcus = frame.mcus(&coded.iter().map(|(c, ..)| *c).collect::<Vec<_>>());
        let intervals = Intervals::new(mcus, self.restart_interval);
        let out = &mut self.sound.bytes;
        if !frame.is_sequential {
            if !intervals.are_marked(data) {
                return Err(damaged("a restart marker is missing"));
            }
            out.extend(data);
            return Ok(());
        }
        let alone = coded.len() == 1;
        let blocks: Vec<Blocks<'_>> = coded
            .iter()
            .map(|&(c, dc, ac)| {
                Some(Blocks {
                    // A colour alone is not interleaved: its MCU is a block, whatever the header says (T.81 A.2.2).
                    count: if alone { 1 } else { c.across * c.down },
                    dc: self.tables.dc(dc)?,
                    ac: self.tables.ac(ac)?,
                })
            })
            .collect::<Option<_>>()
            .ok_or_else(|| damaged("a scan wants Huffman tables that are not there"))?;
        let file = self.file;
        intervals
            .copy(data, &blocks, out)
            .map_err(|error| match error {
                Unread::Ended => cut_off(file),
                Unread::Contradicts(reason) => damaged(reason),
            })
    }
}

impl Frame {
    /// MCUs of a scan of `scanned` colours (T.81 A.2).
    fn mcus(&self, scanned: &[&Component]) -> usize {
        let most =
            |side: fn(&Component) -> usize| self.components.iter().map(side).max().unwrap_or(1);
        let (across, down) = (most(|c| c.across), most(|c| c.down));
        let (width, height) = self.size_px;
        match scanned {
            [only] => {
                let columns = (width * only.across).div_ceil(across).div_ceil(8);
                columns * (height * only.down).div_ceil(down).div_ceil(8)
            }
            _ => width.div_ceil(8 * across) * height.div_ceil(8 * down),
        }
    }
}

/// Bytes up to the marker that ends a scan.
fn scan_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some((skipped, marker, behind)) = next_marker(&bytes[at..]) {
        if !RESTART.contains(&marker) {
            return at + skipped;
        }
        at = bytes.len() - behind.len();
    }
    bytes.len()
}

/// One colour's blocks in an MCU, and their codes.
struct Blocks<'a> {
    count: usize,
    dc: &'a Huffman,
    ac: &'a Huffman,
}

/// Why a scan cannot be read.
enum Unread {
    /// It ends before its last block.
    Ended,
    Contradicts(String),
}

/// How restart markers divide a scan.
struct Intervals {
    mcus: usize,
    /// MCUs from one marker to the next.
    each: usize,
    count: usize,
}

impl Intervals {
    fn new(mcus: usize, interval: usize) -> Intervals {
        let each = match interval {
            0 => mcus,
            interval => interval,
        };
        Intervals {
            mcus,
            each,
            count: mcus.div_ceil(each.max(1)),
        }
    }

    /// Whether `data` has a marker behind every interval but the last; one behind the last is usual, too.
    fn are_marked(&self, data: &[u8]) -> bool {
        let mut markers = 0;
        let in_turn = pieces(data).all(|(_, marker)| match marker {
            Some(number) => {
                markers += 1;
                usize::from(number) == (markers - 1) % 8
            }
            None => true,
        });
        in_turn && (markers + 1 == self.count || markers == self.count)
    }

    /// Appends `data` to `out`, with a marker behind every interval but the last.
    ///
    /// Where one was lost, its number is missing in their sequence; what stands on both sides of it is there.
    fn copy(&self, data: &[u8], blocks: &[Blocks<'_>], out: &mut Vec<u8>) -> Result<(), Unread> {
        let mut done = 0;
        for (mut piece, marker) in pieces(data) {
            let left = self.count - done;
            // The marker behind an interval has that interval's number.
            let here = match marker {
                Some(number) => 1 + (usize::from(number) + 8 - done % 8) % 8,
                None => left,
            };
            if left == 0 {
                break;
            }
            if here > left {
                return Err(Unread::Contradicts(
                    "its restart markers are out of turn".into(),
                ));
            }
            for _ in 0..here {
                let mcus = self.each.min(self.mcus - done * self.each);
                let end = match read(piece, mcus, blocks) {
                    // Nothing but the end of the file can have cut what no marker ends.
                    Err(Unread::Ended) if marker.is_some() => {
                        let count = self.count;
                        let told = format!(
                            "restart interval {} of {count} is missing or not whole",
                            done + 1
                        );
                        return Err(Unread::Contradicts(told));
                    }
                    read => read?,
                };
                out.extend(&piece[..end]);
                piece = &piece[end..];
                done += 1;
                if done < self.count {
                    out.extend([0xff, RESTART.start() + ((done - 1) % 8) as u8]);
                }
            }
        }
        Ok(())
    }
}

/// What lies between restart markers, each with the number of the marker behind it.
fn pieces(data: &[u8]) -> impl Iterator<Item = (&[u8], Option<u8>)> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let Some((at, marker, behind)) = next_marker(bytes) else {
            rest = None;
            return Some((bytes, None));
        };
        rest = Some(behind);
        Some((&bytes[..at], Some(marker - RESTART.start())))
    })
}

/// Steps over `mcus` MCUs; the bytes that they take.
fn read(data: &[u8], mcus: usize, blocks: &[Blocks<'_>]) -> Result<usize, Unread> {
    let mut bits = Bits::new(data);
    for mcu in 0..mcus {
        for Blocks { count, dc, ac } in blocks {
            for _ in 0..*count {
                let read = bits.difference(dc).and_then(|_| bits.step_over_block(ac));
                if !bits.is_whole() {
                    return Err(Unread::Ended);
                }
                if read.is_none() {
                    let told = format!("its data contradict its tables at block group {mcu}");
                    return Err(Unread::Contradicts(told));
                }
            }
        }
    }
    bits.position().ok_or(Unread::Ended)
}
