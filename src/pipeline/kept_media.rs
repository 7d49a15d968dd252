//! Soft tokens of pictures and clips that come again: clients that have no memory at the other end send a conversation whole with each
//! request, and what was seen and heard in its earlier turns is then encoded once.

use std::collections::VecDeque;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Media;
use crate::model::encoder::PictureOptions;
use crate::model::prompt::Part;

/// What was encoded, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

/// Rows of the text model's width, and their place in a prompt.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    pub(super) rows: Arc<[f32]>,
    pub(super) part: Part,
}

/// Soft tokens by what they are of, the least recently used first.
#[derive(Debug)]
pub(super) struct KeptMedia {
    kept: VecDeque<(Key, Encoded)>,
    limit_bytes: u64,
}

impl KeptMedia {
    /// Nothing is kept where the limit is 0.
    pub(super) fn new(limit_bytes: u64) -> KeptMedia {
        KeptMedia {
            kept: VecDeque::new(),
            limit_bytes,
        }
    }

    /// What a medium is known by; what its options leave open is as in `usual`. `None` where nothing is kept.
    pub(super) fn key(&self, media: &Media, usual: PictureOptions) -> Option<Key> {
        if self.limit_bytes == 0 {
            return None;
        }
        let mut hash = Sha256::new();
        match media {
            Media::Image(image, asked) => {
                let options = asked.or(usual);
                hash.update(format!(
                    "picture {options:?} {} {} ",
                    image.width_px, image.height_px
                ));
                hash.update(&image.pixels);
            }
            Media::Clip(clip) => {
                hash.update(format!("clip {} ", clip.sample_rate_hz));
                hash.update(bytemuck::cast_slice(&clip.samples));
            }
            Media::Again(media) => return self.key(media, usual),
        }
        Some(Key(hash.finalize().into()))
    }

    /// What was kept of it, which is now the most recently used.
    pub(super) fn get(&mut self, key: Key) -> Option<Encoded> {
        let at = self.kept.iter().position(|(known, _)| *known == key)?;
        let found = self.kept.remove(at)?;
        let encoded = found.1.clone();
        self.kept.push_back(found);
        Some(encoded)
    }

    /// Keeps it, and forgets what is too much then, itself among that.
    pub(super) fn keep(&mut self, key: Key, encoded: Encoded) {
        self.kept.push_back((key, encoded));
        while self.bytes() > self.limit_bytes {
            self.kept.pop_front();
        }
    }

    fn bytes(&self) -> u64 {
        let rows = self.kept.iter().map(|(_, encoded)| &encoded.rows);
        rows.map(|rows| size_of_val(&rows[..]) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::image::RgbImage;
    use crate::media::AudioClip;

    fn picture(width_px: usize, height_px: usize, options: PictureOptions) -> Media {
        let pixels = vec![7; width_px * height_px * 3];
        let image = RgbImage {
            width_px,
            height_px,
            pixels,
        };
        Media::Image(image, options)
    }

    fn encoded(bytes: usize) -> Encoded {
        Encoded {
            rows: vec![0.0; bytes / 4].into(),
            part: Part::Image { soft_tokens: 1 },
        }
    }

    #[test]
    fn media_are_told_apart_by_what_is_encoded_and_how() {
        let kept = KeptMedia::new(1);
        let usual = PictureOptions::of_soft_tokens(280);
        let open = PictureOptions::default();
        let clip = |samples: &[f32]| {
            Media::Clip(AudioClip {
                samples: samples.to_vec(),
                sample_rate_hz: 16_000,
            })
        };
        let key = |media: &Media| kept.key(media, usual).unwrap();
        let all = [
            picture(4, 2, open),
            picture(2, 4, open),
            picture(4, 2, PictureOptions::of_soft_tokens(70)),
            clip(&[0.5]),
            clip(&[0.5, 0.0]),
        ];
        for (n, one) in all.iter().enumerate() {
            for (m, other) in all.iter().enumerate() {
                assert_eq!(key(one) == key(other), n == m, "{n} {m}");
            }
            let again = Media::Again(Box::new(one.clone()));
            assert_eq!(key(&again), key(one));
        }
        // What is usual is the same as what was asked for.
        assert_eq!(key(&picture(4, 2, usual)), key(&all[0]));
        assert_eq!(KeptMedia::new(0).key(&all[0], usual), None);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut kept = KeptMedia::new(1000);
        let keys = [1, 2, 3].map(|n| Key([n; 32]));
        kept.keep(keys[0], encoded(400));
        kept.keep(keys[1], encoded(400));
        assert!(kept.get(keys[0]).is_some());
        kept.keep(keys[2], encoded(400));
        let left = keys.map(|key| kept.get(key).is_some());
        assert_eq!(left, [true, false, true]);
        // What is too large by itself is not kept, and neither is anything beside it.
        kept.keep(keys[1], encoded(1200));
        assert_eq!(kept.bytes(), 0);
    }
}
