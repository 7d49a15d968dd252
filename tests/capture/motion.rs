//! Motion is found where something moves, and not where light changes or the sensor is noisy.

use std::path::Path;
use std::time::Duration;

use gemmad::capture::motion::Motion;
use gemmad::capture::motion::{MotionChange, MotionDetector};
use gemmad::features::image::{ImageLimits, LumaImage};

/// The coordinates in which scenes are drawn; pictures have every second row and column.
const WIDTH: usize = 640;
const HEIGHT: usize = 480;

/// A camera that takes five pictures a second, and what the detector says of them.
struct Scene {
    detector: MotionDetector,
    now: Duration,
    seed: u32,
    told: Vec<(f32, MotionChange)>,
}

impl Scene {
    fn new(config: &Motion) -> Scene {
        Scene {
            detector: MotionDetector::new(config),
            now: Duration::ZERO,
            seed: 1,
            told: Vec::new(),
        }
    }

    /// Shows what `luma` gives for each pixel, with sensor noise of some levels, for `seconds`.
    fn show(&mut self, seconds: f32, luma: impl Fn(usize, usize, f32) -> f32) -> &mut Scene {
        for i in 0..(seconds * 5.0) as usize {
            let mut pixels = Vec::new();
            for y in (0..HEIGHT).step_by(2) {
                for x in (0..WIDTH).step_by(2) {
                    self.seed = self
                        .seed
                        .wrapping_mul(1_664_525)
                        .wrapping_add(1_013_904_223);
                    let noise = (self.seed >> 24) as f32 / 256.0 * 16.0 - 8.0;
                    pixels.push((luma(x, y, i as f32 / 5.0) + noise).clamp(0.0, 255.0) as u8);
                }
            }
            self.picture(&LumaImage {
                width_px: WIDTH / 2,
                height_px: HEIGHT / 2,
                pixels,
            });
        }
        self
    }

    fn picture(&mut self, image: &LumaImage) {
        let change = self.detector.look(image, self.now);
        self.told
            .extend(change.map(|change| (self.now.as_secs_f32(), change)));
        self.now += Duration::from_millis(200);
    }

    /// `(begins, ends)` of all motion, seconds.
    fn motions(&self) -> Vec<(f32, Option<f32>)> {
        let mut motions = Vec::new();
        for (at, change) in &self.told {
            match change {
                MotionChange::Started(_) => motions.push((*at, None)),
                MotionChange::Ended => motions.last_mut().unwrap().1 = Some(*at),
            }
        }
        motions
    }
}

/// A room: a gradient with a dark door.
fn room(x: usize, y: usize) -> f32 {
    if (100..200).contains(&x) && y > 150 {
        40.0
    } else {
        80.0 + 60.0 * x as f32 / WIDTH as f32
    }
}

/// A bright square of 80 pixels (2 % of the picture), its left upper corner at `(x0, 200)`.
fn square(x0: f32) -> impl Fn(usize, usize) -> bool {
    move |x, y| (x0..x0 + 80.0).contains(&(x as f32)) && (200..280).contains(&y)
}

fn config() -> Motion {
    Motion {
        off_delay_s: 5,
        ..Motion::default()
    }
}

#[test]
fn a_square_that_crosses_the_room_is_one_motion() {
    let mut scene = Scene::new(&config());
    scene
        .show(10.0, |x, y, _| room(x, y))
        .show(5.0, |x, y, t| {
            if square(250.0 + 40.0 * t)(x, y) {
                230.0
            } else {
                room(x, y)
            }
        })
        .show(15.0, |x, y, _| room(x, y));
    let motions = scene.motions();
    assert_eq!(motions.len(), 1, "{:?}", scene.told);
    let (begin, end) = motions[0];
    assert!((10.0..10.5).contains(&begin), "{begin}");
    assert!((19.5..22.0).contains(&end.unwrap()), "{end:?}");
    let MotionChange::Started(extent) = scene.told[0].1 else {
        panic!("{:?}", scene.told)
    };
    assert!((0.015..0.03).contains(&extent.area), "{extent:?}");
    let [x, y, width, height] = extent.bounds;
    for (found, wanted) in [
        (x * WIDTH as f32, 250.0),
        (y * HEIGHT as f32, 200.0),
        (width * WIDTH as f32, 80.0),
        (height * HEIGHT as f32, 80.0),
    ] {
        assert!((found - wanted).abs() <= 8.0, "{extent:?}");
    }
}

#[test]
fn noise_and_daylight_are_no_motion() {
    let mut scene = Scene::new(&config());
    // A cloud: half the light is gone within ten seconds, and comes back at once.
    scene
        .show(10.0, |x, y, _| room(x, y))
        .show(10.0, |x, y, t| room(x, y) * (1.0 - 0.05 * t))
        .show(10.0, |x, y, _| room(x, y) * 0.5)
        .show(10.0, |x, y, _| room(x, y));
    assert_eq!(scene.motions(), [], "{:?}", scene.told);
}

#[test]
fn a_lamp_that_lights_everything_is_no_motion_and_one_that_lights_a_corner_ends() {
    let mut scene = Scene::new(&config());
    scene
        .show(5.0, |x, y, _| room(x, y))
        .show(10.0, |x, y, _| 140.0 + 0.3 * room(x, y))
        .show(5.0, |x, y, _| room(x, y));
    assert_eq!(scene.motions(), [], "{:?}", scene.told);

    let lit = |x, y| {
        if x > 400 && y < 240 {
            220.0
        } else {
            room(x, y)
        }
    };
    scene.show(60.0, |x, y, _| lit(x, y));
    let motions = scene.motions();
    assert_eq!(motions.len(), 1, "{:?}", scene.told);
    // 20 s in which the background takes it over to 63 %, and the rest that the threshold asks for, then the off-delay.
    assert!(motions[0].1.unwrap() - motions[0].0 < 50.0, "{motions:?}");
    assert!(scene.detector.moving().is_none());
}

#[test]
fn zones_and_the_area_say_what_counts() {
    let walk = |scene: &mut Scene| {
        scene.show(5.0, |x, y, _| room(x, y)).show(3.0, |x, y, t| {
            if square(400.0 + 40.0 * t)(x, y) {
                230.0
            } else {
                room(x, y)
            }
        });
        scene.motions().len()
    };
    let zone = |zone| Motion {
        zones: vec![zone],
        ..config()
    };
    assert_eq!(walk(&mut Scene::new(&zone([0.0, 0.0, 0.5, 1.0]))), 0);
    let mut right = Scene::new(&zone([0.5, 0.0, 0.5, 1.0]));
    assert_eq!(walk(&mut right), 1);
    let MotionChange::Started(extent) = right.told[0].1 else {
        panic!("{:?}", right.told)
    };
    // The share is that of the zone.
    assert!((0.03..0.06).contains(&extent.area), "{extent:?}");
    let large = Motion {
        area: 0.1,
        ..config()
    };
    assert_eq!(walk(&mut Scene::new(&large)), 0);
}

#[test]
fn between_the_two_areas_motion_goes_on_but_does_not_begin() {
    let config = Motion {
        area: 0.03,
        area_off: 0.01,
        ..config()
    };
    // The background is given no time to learn: the square jumps to and fro.
    let jumping = |x, y, t: f32, side: usize| {
        let left = 250 + 150 * ((t * 5.0).round() as usize % 2);
        if (left..left + side).contains(&x) && (200..200 + side).contains(&y) {
            230.0
        } else {
            room(x, y)
        }
    };
    let mut scene = Scene::new(&config);
    scene.show(5.0, |x, y, _| room(x, y));
    // 2 %: too little to begin with.
    scene.show(5.0, |x, y, t| jumping(x, y, t, 80));
    assert_eq!(scene.motions(), []);
    // 5 % begin it, 2 % keep it up for longer than the off-delay.
    scene.show(2.0, |x, y, t| jumping(x, y, t, 124));
    scene.show(10.0, |x, y, t| jumping(x, y, t, 80));
    assert_eq!(scene.motions().len(), 1);
    assert!(scene.detector.moving().is_some());
    scene.show(15.0, |x, y, _| room(x, y));
    assert!(scene.motions()[0].1.is_some());
}

#[test]
fn a_stream_that_begins_anew_is_no_motion() {
    let mut scene = Scene::new(&config());
    scene.show(2.0, |x, y, _| room(x, y));
    assert!(!scene.detector.restart());
    scene.show(2.0, |x, y, _| {
        if square(300.0)(x, y) {
            230.0
        } else {
            room(x, y)
        }
    });
    assert_eq!(scene.motions(), []);
    scene.show(1.0, |x, y, _| room(x, y));
    assert!(scene.detector.restart(), "it ends with the stream");
    // Another size, an empty and a tiny picture.
    for (width_px, height_px) in [(160, 120), (0, 0), (1, 1), (1, 3000), (3000, 1)] {
        let told = scene.told.len();
        scene.picture(&LumaImage {
            width_px,
            height_px,
            pixels: vec![9; width_px * height_px],
        });
        scene.picture(&LumaImage {
            width_px,
            height_px,
            pixels: vec![9; width_px * height_px],
        });
        assert_eq!(scene.told.len(), told);
    }
}

#[test]
fn what_appears_in_a_photograph_is_motion() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/heldout/images/005_combo.png");
    let picture =
        LumaImage::decode(&std::fs::read(file).unwrap(), &ImageLimits::default()).unwrap();
    let (width, height) = (picture.width_px, picture.height_px);
    let mut turned = picture.clone();
    // Its middle upside down: the same brightness on the whole.
    for y in height / 3..height * 2 / 3 {
        for x in width / 3..width * 2 / 3 {
            turned.pixels[y * width + x] = picture.pixels[(height - 1 - y) * width + x];
        }
    }
    let mut scene = Scene::new(&config());
    for _ in 0..10 {
        scene.picture(&picture);
    }
    assert!(scene.told.is_empty());
    scene.picture(&turned);
    let MotionChange::Started(extent) = scene.told[0].1 else {
        panic!("{:?}", scene.told)
    };
    let [x, y, w, h] = extent.bounds;
    assert!(
        x >= 0.32 && y >= 0.32 && x + w <= 0.68 && y + h <= 0.68,
        "{extent:?}"
    );
}
