//! The tables of a baseline JPEG, as far as the first coefficient of each block needs them.

/// Bits that are looked up at once; longer codes, which are rare, are searched for.
const LOOKED_UP: u32 = 10;

/// A Huffman table (T.81 annex C).
#[derive(Clone)]
pub(super) struct Huffman {
    /// By the next [`LOOKED_UP`] bits: length of the code and its symbol; length 0 where the code is longer.
    symbols: Vec<(u8, u8)>,
    /// By the same bits, for an AC table: bits of the code with its value, and coefficients that it steps over; 0 bits where the code is longer.
    steps: Vec<(u8, u8)>,
    /// Of each length from 1 on: the first code beyond those of that length, in the upper bits, and the index of its symbol.
    beyond: [(u32, i32); 16],
    by_code: Vec<u8>,
}

impl Huffman {
    /// What the end of a block steps over: more than any other code could get to.
    pub(super) const END_OF_BLOCK: usize = 128;

    /// From the number of codes of each length and their symbols, both as in the file.
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Huffman> {
        let mut table = Huffman {
            symbols: vec![(0, 0); 1 << LOOKED_UP],
            steps: vec![(0, 0); 1 << LOOKED_UP],
            beyond: [(0, 0); 16],
            by_code: symbols.to_vec(),
        };
        let mut code = 0u32;
        let mut index = 0;
        for (length, &count) in (1u32..).zip(counts) {
            let first = index as i32 - code as i32;
            for &symbol in symbols.get(index..index + usize::from(count))? {
                if code >> length != 0 {
                    return None;
                }
                if length <= LOOKED_UP {
                    let free = LOOKED_UP - length;
                    let at = (code << free) as usize..((code + 1) << free) as usize;
                    table.symbols[at.clone()].fill((length as u8, symbol));
                    let (bits, coefficients) = step_of(length, symbol);
                    table.steps[at].fill((bits as u8, coefficients as u8));
                }
                code += 1;
                index += 1;
            }
            table.beyond[length as usize - 1] = (code << (16 - length), first);
            code <<= 1;
        }
        Some(table)
    }

    /// Length of the code that the uppermost bits of `ahead` begin with, and its symbol.
    #[inline(always)]
    pub(super) fn symbol(&self, ahead: u64) -> Option<(u32, u8)> {
        let (length, symbol) = self.symbols[(ahead >> (64 - LOOKED_UP)) as usize];
        if length > 0 {
            return Some((u32::from(length), symbol));
        }
        self.long_symbol(ahead)
    }

    #[cold]
    fn long_symbol(&self, ahead: u64) -> Option<(u32, u8)> {
        let code = (ahead >> 48) as u32;
        let longer = LOOKED_UP as usize;
        let at = longer
            + self.beyond[longer..]
                .iter()
                .position(|&(beyond, _)| code < beyond)?;
        let length = at as u32 + 1;
        let index = (code >> (16 - length)) as i32 + self.beyond[at].1;
        Some((length, *self.by_code.get(usize::try_from(index).ok()?)?))
    }

    /// For an AC table: bits of the next code with its value, and the coefficients that it steps over.
    #[inline(always)]
    pub(super) fn step(&self, ahead: u64) -> Option<(u32, usize)> {
        let (bits, coefficients) = self.steps[(ahead >> (64 - LOOKED_UP)) as usize];
        if bits > 0 {
            return Some((u32::from(bits), usize::from(coefficients)));
        }
        let (length, symbol) = self.long_symbol(ahead)?;
        Some(step_of(length, symbol))
    }
}

/// Of an AC code of `length` bits: its bits with its value's, and the coefficients that it steps over (T.81 F.1.2.2).
fn step_of(length: u32, symbol: u8) -> (u32, usize) {
    let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
    match (zeros, size) {
        (0..15, 0) => (length, Huffman::END_OF_BLOCK),
        _ => (length + size, zeros + 1),
    }
}

/// All that a scan may refer to.
pub(super) struct Tables {
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// The steps of the first coefficients.
    dc_steps: [Option<u16>; 4],
}

impl Tables {
    /// The tables that cameras do not send, because all use the same (T.81 K.3).
    pub(super) fn standard() -> Tables {
        let table = |(counts, symbols): &(_, &[u8])| Huffman::new(counts, symbols);
        Tables {
            dc: [table(&DC_LUMA), table(&DC_CHROMA), None, None],
            ac: [table(&AC_LUMA), table(&AC_CHROMA), None, None],
            dc_steps: [None; 4],
        }
    }

    /// The same as a DHT segment, its marker included.
    pub(super) fn standard_segment() -> Vec<u8> {
        let tables: [(u8, &Listed); 4] = [
            (0x00, &DC_LUMA),
            (0x01, &DC_CHROMA),
            (0x10, &AC_LUMA),
            (0x11, &AC_CHROMA),
        ];
        let tables: Vec<u8> = tables
            .iter()
            .flat_map(|(name, (counts, symbols))| [&[*name][..], counts, symbols].concat())
            .collect();
        let length = (tables.len() as u16 + 2).to_be_bytes();
        [&[0xff, 0xc4], &length[..], &tables].concat()
    }

    pub(super) fn dc(&self, index: u8) -> Option<&Huffman> {
        self.dc.get(usize::from(index))?.as_ref()
    }

    pub(super) fn ac(&self, index: u8) -> Option<&Huffman> {
        self.ac.get(usize::from(index))?.as_ref()
    }

    pub(super) fn dc_step(&self, index: u8) -> Option<u16> {
        *self.dc_steps.get(usize::from(index))?
    }

    /// Takes the tables of a DHT segment (T.81 B.2.4.2).
    pub(super) fn add_huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [class_and_index, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let symbols = counts.iter().map(|&count| usize::from(count)).sum();
            let of_class = match class_and_index >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *of_class.get_mut(usize::from(class_and_index & 15))? =
                Some(Huffman::new(counts, rest.get(..symbols)?)?);
            segment = &rest[symbols..];
        }
        Some(())
    }

    /// Takes the tables of a DQT segment (T.81 B.2.4.1).
    pub(super) fn add_quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [precision_and_index, rest @ ..] = segment {
            let (step, bytes) = match (precision_and_index >> 4, rest) {
                (0, [step, ..]) => (u16::from(*step), 64),
                (1, [high, low, ..]) => (u16::from_be_bytes([*high, *low]), 128),
                _ => return None,
            };
            *self
                .dc_steps
                .get_mut(usize::from(precision_and_index & 15))? = Some(step);
            segment = rest.get(bytes..)?;
        }
        Some(())
    }
}

type Listed = ([u8; 16], &'static [u8]);

/// T.81 table K.3.
const DC_LUMA: Listed = (
    [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
);

/// T.81 table K.4.
const DC_CHROMA: Listed = (
    [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
);

/// T.81 table K.5.
#[rustfmt::skip]
const AC_LUMA: Listed = ([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125], &[
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
    0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
    0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
    0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
    0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
]);

/// T.81 table K.6.
#[rustfmt::skip]
const AC_CHROMA: Listed = ([0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119], &[
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
    0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
    0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
    0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
    0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
]);
