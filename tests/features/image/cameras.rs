//! JPEG as cameras write it, which viewers show: made of whole files, and compared with Pillow's reading of those.

use gemmad::features::image::{ImageError, ImageLimits, LumaImage, Overview, RgbImage};

use super::{against_pillow, bytes, decode};

/// Halved colours, the usual tables, a restart marker behind every two groups of blocks.
const CAMERA: &str = "camera_420.jpg";

/// A JPEG taken apart: marker and whole bytes of each piece, restart intervals too.
fn pieces(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let marker = file[at + 1];
        let header = match marker {
            0xd0..=0xd9 => 2,
            _ => 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]])),
        };
        let mut end = at + header;
        while matches!(marker, 0xda | 0xd0..=0xd7) && (file[end] != 0xff || file[end + 1] == 0) {
            end += 1;
        }
        found.push((marker, file[at..end].to_vec()));
        at = end;
    }
    found
}

fn joined(pieces: &[(u8, Vec<u8>)]) -> Vec<u8> {
    pieces.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// The camera's file with `change` made to its pieces.
fn changed(change: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> Vec<u8> {
    let mut parts = pieces(&bytes(CAMERA));
    change(&mut parts);
    joined(&parts)
}

fn position(pieces: &[(u8, Vec<u8>)], marker: u8) -> usize {
    pieces
        .iter()
        .position(|(found, _)| *found == marker)
        .unwrap()
}

/// Read as the whole file is, in colour and by each of the ways to its brightness.
fn is_read_whole(name: &str, file: &[u8]) {
    let whole = bytes(CAMERA);
    let limits = ImageLimits::default();
    let told = |error: ImageError| panic!("{name}: {error}");
    let read = RgbImage::decode(file, &limits).unwrap_or_else(told);
    assert_eq!(read, decode(&whole).unwrap(), "{name}");
    assert_eq!(
        LumaImage::decode(file, &limits).unwrap(),
        LumaImage::decode(&whole, &limits).unwrap(),
        "{name}"
    );
    let overview = |file: &[u8]| Overview::decode(file, 8, &limits).unwrap();
    assert_eq!(overview(file).picture_px, overview(&whole).picture_px);
}

/// Refused in every way.
fn is_refused(name: &str, file: &[u8], words: &str) {
    let limits = ImageLimits::default();
    let Err(error) = RgbImage::decode(file, &limits) else {
        panic!("{name} was read")
    };
    assert!(error.to_string().contains(words), "{name}: {error}");
    assert!(LumaImage::decode(file, &limits).is_err(), "{name}");
    assert!(Overview::decode(file, 8, &limits).is_err(), "{name}");
}

#[test]
fn a_camera_s_picture_is_read_as_pillow_reads_it() {
    // Halved colour channels are interpolated differently.
    let (worst, mean) = against_pillow(CAMERA);
    assert!(
        worst <= 40 && mean < 1.5,
        "at most {worst}, {mean} on average"
    );
}

#[test]
fn oddities_that_viewers_overlook_are_overlooked() {
    let comment = (0xfe, b"\xff\xfe\x00\x04ab".to_vec());
    let garbage = |bytes: &[u8]| (0, bytes.to_vec());
    let without = |marker: u8| changed(|p| p.retain(|(found, _)| *found != marker));
    for (name, file) in [
        ("no Huffman tables", without(0xc4)),
        (
            "nothing but what is needed",
            changed(|p| p.retain(|(m, _)| !matches!(m, 0xc4 | 0xe0))),
        ),
        ("no end", without(0xd9)),
        ("half an end", {
            let mut file = without(0xd9);
            file.push(0xff);
            file
        }),
        (
            "two beginnings",
            changed(|p| p.insert(0, (0xd8, vec![0xff, 0xd8]))),
        ),
        (
            "a second beginning behind the first segment",
            changed(|p| p.insert(2, (0xd8, vec![0xff, 0xd8]))),
        ),
        ("fill bytes", changed(|p| p.insert(1, garbage(&[0xff; 3])))),
        (
            "bytes between segments",
            changed(|p| p.insert(2, garbage(b"\0\x12rubbish\0"))),
        ),
        (
            "stuffed bytes between segments",
            changed(|p| p.insert(2, garbage(&[0xff, 0, 0xff, 0]))),
        ),
        (
            "application segments full of markers",
            changed(|p| {
                let mut filled = vec![0xff, 0xe5, 0, 12];
                filled.extend([0xff, 0xd9, 0xff, 0xda, 0xff, 0xd8, 0xff, 0xc4, 0xff, 0xdd]);
                p.insert(1, (0xe5, filled));
            }),
        ),
        (
            "unknown segments",
            changed(|p| p.insert(1, (0xf3, vec![0xff, 0xf3, 0, 5, 1, 2, 3]))),
        ),
        ("comments", changed(|p| p.insert(4, comment))),
        (
            "tables behind the size",
            changed(|p| {
                let frame = position(p, 0xc0);
                let header = p.remove(frame);
                p.insert(1, header);
            }),
        ),
        ("bytes behind the end", {
            let mut file = bytes(CAMERA);
            file.extend(b"dhav\x04\x1a\x01\0");
            file
        }),
        (
            "another picture behind the end",
            [bytes(CAMERA), bytes("grey.jpg")].concat(),
        ),
        (
            "no end and another picture",
            [without(0xd9), bytes("grey.jpg")].concat(),
        ),
        (
            "a restart marker behind the last interval",
            changed(|p| {
                let end = position(p, 0xd9);
                p.insert(end, (0xd5, vec![0xff, 0xd5]));
            }),
        ),
    ] {
        is_read_whole(name, &file);
    }
}

/// Without restart markers there is no interval, and one that no picture is long enough for changes nothing.
#[test]
fn an_interval_of_nothing_and_one_beyond_the_picture_are_none() {
    let grey = bytes("grey.jpg");
    for interval in [[0, 0], [0xff, 0xff]] {
        let mut parts = pieces(&grey);
        let scan = position(&parts, 0xda);
        let segment = [&[0xff, 0xdd, 0, 4][..], &interval].concat();
        parts.insert(scan, (0xdd, segment));
        assert_eq!(decode(&joined(&parts)).unwrap(), decode(&grey).unwrap());
    }
    // Markers that no interval asks for contradict the file.
    is_refused(
        "no interval",
        &changed(|p| p.retain(|(m, _)| *m != 0xdd)),
        "JPEG",
    );
}

#[test]
fn lost_restart_markers_are_put_back_and_nothing_is_shifted() {
    let whole = pieces(&bytes(CAMERA));
    let markers: Vec<usize> = (0..whole.len())
        .filter(|&i| matches!(whole[i].0, 0xd0..=0xd7))
        .collect();
    assert_eq!(markers.len(), 29);
    for &lost in &markers {
        let mut parts = whole.clone();
        parts[lost].1.drain(..2);
        is_read_whole(
            &format!("without the marker of piece {lost}"),
            &joined(&parts),
        );
    }
    let mut parts = whole.clone();
    for lost in [0, 1, 2, 10, 27, 28] {
        parts[markers[lost]].1.drain(..2);
    }
    is_read_whole("without six markers", &joined(&parts));

    // What is lost with its data cannot be put back.
    for (name, change) in [
        (
            "a lost interval",
            &(|p: &mut Vec<_>| {
                p.remove(markers[7]);
            }) as &dyn Fn(&mut Vec<(u8, Vec<u8>)>),
        ),
        ("the last interval", &|p| {
            p.remove(markers[28]);
        }),
        ("an interval twice", &|p| {
            p.insert(markers[7], p[markers[7]].clone())
        }),
        ("intervals exchanged", &|p| p.swap(markers[3], markers[4])),
        ("half an interval", &|p| {
            let half = p[markers[7]].1.len() / 2;
            p[markers[7]].1.truncate(half);
        }),
        ("a marker where none belongs", &|p| {
            p[markers[7]].1.splice(3..3, [0xff, 0xd7]);
        }),
        ("every number the same", &|p| {
            for &marker in &markers {
                p[marker].1[1] = 0xd0;
            }
        }),
    ] {
        let mut parts = whole.clone();
        change(&mut parts);
        is_refused(name, &joined(&parts), "JPEG picture is");
    }
}

#[test]
fn a_picture_that_ends_within_its_rows_stays_refused() {
    let whole = bytes(CAMERA);
    let parts = pieces(&whole);
    let scan = whole.len() - 2 - parts.last().unwrap().1.len();
    for end in (scan / 2..whole.len() - 2).step_by(7) {
        is_refused(&format!("cut off at {end}"), &whole[..end], "cut off");
        // The end marker alone makes nothing whole, nor does the next picture.
        let closed = [&whole[..end], &[0xff, 0xd9]].concat();
        is_refused(
            &format!("cut off at {end}, closed"),
            &closed,
            "JPEG picture is",
        );
        let followed = [&whole[..end], &whole[..]].concat();
        is_refused(
            &format!("cut off at {end}, followed"),
            &followed,
            "JPEG picture is",
        );
    }
    // A progressive picture is told in turns: without its end nobody knows whether there was another.
    let progressive = bytes("progressive_420.jpg");
    is_refused("no end", &progressive[..progressive.len() - 2], "cut off");
    // Without restart markers the data alone tell.
    let grey = bytes("grey.jpg");
    let mut parts = pieces(&grey);
    let scan = position(&parts, 0xda);
    let half = parts[scan].1.len() / 2;
    parts[scan].1.truncate(half);
    is_refused("half, closed", &joined(&parts), "cut off");
}

#[test]
fn of_several_exif_segments_the_first_counts() {
    let exif = |name: &str| {
        let parts = pieces(&bytes(name));
        parts[position(&parts, 0xe1)].clone()
    };
    for (first, second) in [(6, 1), (1, 6), (3, 8)] {
        let upright = |orientation: u8| format!("orientation_{orientation}.jpg");
        let mut parts = pieces(&bytes(&upright(first)));
        let at = position(&parts, 0xe1);
        parts.insert(at + 1, exif(&upright(second)));
        // What begins with another name is none.
        parts.insert(at, (0xe1, b"\xff\xe1\x00\x08http:/".to_vec()));
        assert_eq!(
            decode(&joined(&parts)).unwrap(),
            decode(&bytes(&upright(first))).unwrap(),
            "{first} and {second}"
        );
    }
}
