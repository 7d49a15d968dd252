//! Sound and pictures.

use std::time::Duration;

use gemmad::capture::motion::Motion;
use gemmad::capture::motion::MotionDetector;
use gemmad::features::audio_file::{AudioLimits, AudioReader};
use gemmad::features::image::{ImageLimits, LumaImage, Overview, RgbImage};
use gemmad::features::wav::PcmReader;
use gemmad::media::Resampling;
use wake::frontend::Frontend;
use wake::manifest::Manifest;
use wake::network::Network;

/// Far below what is accepted otherwise, so that memory beyond it shows.
const AUDIO: AudioLimits = AudioLimits {
    max_file_bytes: 1 << 20,
    max_duration_s: 60,
    max_channels: 8,
};
const SAMPLE_RATE_HZ: usize = 16_000;

const IMAGE: ImageLimits = ImageLimits {
    max_file_bytes: 1 << 20,
    max_pixels: 1 << 20,
};

/// Few columns, so that small pictures have as many blocks.
const COLUMNS: usize = 8;

/// WAV, FLAC, MP3 or OGG: as a file, and WAV as a pipe, too.
pub(crate) fn audio(bytes: &[u8]) {
    if let Ok(mut reader) = AudioReader::from_bytes("input", bytes, &AUDIO) {
        let mut samples = Vec::new();
        while let Ok(true) = reader.read(&mut samples) {
            // What is given before the limit is noticed is one packet more.
            assert!(samples.len() <= 2 * SAMPLE_RATE_HZ * AUDIO.max_duration_s as usize);
        }
        reader.damage();
    }
    if let Ok(mut pipe) = PcmReader::wav(bytes) {
        assert!(pipe.channels() > 0);
        let mut samples = Vec::new();
        while let Ok(true) = pipe.read(&mut samples) {
            samples.clear();
        }
    }
}

/// A JPEG or PNG, Exif and all.
pub(crate) fn picture(bytes: &[u8]) {
    let Ok(image) = RgbImage::decode(bytes, &IMAGE) else {
        return;
    };
    let pixels = image.width_px * image.height_px;
    assert!((1..=IMAGE.max_pixels).contains(&pixels));
    assert_eq!(image.pixels.len(), 3 * pixels);
    for resampling in [Resampling::Bilinear, Resampling::Bicubic] {
        let small = image.resized(16, 24, resampling);
        assert_eq!(small.pixels.len(), 3 * 16 * 24);
    }
}

/// The way of motion, which looks at few points: it finds a picture whole where the decoder does, and of the same size.
pub(crate) fn overview(bytes: &[u8]) {
    let overview = Overview::decode(bytes, COLUMNS, &IMAGE);
    if let Ok(Overview { picture_px, luma }) = &overview {
        assert!((1..=IMAGE.max_pixels).contains(&(picture_px.0 * picture_px.1)));
        assert_eq!(luma.pixels.len(), luma.width_px * luma.height_px);
        assert!(luma.width_px <= picture_px.0 && luma.height_px <= picture_px.1);
        let mut motion = MotionDetector::new(&Motion::default());
        for second in 0..2 {
            motion.look(luma, Duration::from_secs(second));
        }
    }
    if let Ok(whole) = LumaImage::decode(bytes, &IMAGE) {
        assert_eq!(whole.pixels.len(), whole.width_px * whole.height_px);
        let Ok(overview) = overview else {
            panic!("the decoder reads what the overview refuses");
        };
        assert_eq!(overview.picture_px, (whole.width_px, whole.height_px));
    }
}

/// A wake word's model, or the JSON file beside it: what was taken runs, whatever is heard.
pub(crate) fn wake(bytes: &[u8]) {
    if let Err(reason) = Manifest::parse(bytes) {
        assert!(reason.len() < 1000);
    }
    let Ok(mut network) = Network::parse(bytes) else {
        return;
    };
    assert!((1..=100).contains(&network.frames()));
    let sound: Vec<i16> = (0..4800).map(|i: i32| (i * i) as i16).collect();
    let mut frames = Vec::new();
    Frontend::default().push(&sound, &mut |frame| frames.push(*frame));
    for heard in frames.chunks(network.frames()) {
        network.run(heard);
    }
    network.reset();
}
