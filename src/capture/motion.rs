//! Whether something moves in a camera's pictures: a running background, and the area that differs from it. No clock inside.

use std::time::Duration;

use serde::Deserialize;

use crate::features::image::LumaImage;
use crate::media::MotionExtent;
use crate::values::between;

/// `[camera.motion]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Motion {
    /// Look for motion, and describe a picture when there is some.
    pub enabled: bool,
    /// Difference from the background from which a point counts as changed, 0 to 255.
    pub luma_threshold: u8,
    /// Share of the watched area that must have changed for motion to begin, 0 to 1.
    pub area: f32,
    /// Share below which motion may end, 0 to 1; lower than `area`, so that it does not flicker.
    pub area_off: f32,
    /// Motion ends after so long without any, seconds.
    pub off_delay_s: u32,
    /// Rectangles `[x, y, width, height]` of the picture, each 0 to 1, in which motion counts; none: everywhere.
    pub zones: Vec<[f32; 4]>,
}

impl Default for Motion {
    fn default() -> Motion {
        Motion {
            enabled: true,
            luma_threshold: 25,
            area: 0.01,
            area_off: 0.005,
            off_delay_s: 30,
            zones: Vec::new(),
        }
    }
}

impl Motion {
    /// Looks whether the values fit their keys and each other.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub(super) fn check(&self) -> Result<(), String> {
        between("motion.area", self.area, 0.0001, 1.0)?;
        between("motion.area_off", self.area_off, 0.0, 1.0)?;
        if self.area_off >= self.area {
            return Err(format!(
                "motion.area_off is {}; it must be less than motion.area ({})",
                self.area_off, self.area
            ));
        }
        for zone @ [x, y, width, height] in &self.zones {
            let inside = zone.iter().all(|side| (0.0..=1.0).contains(side))
                && *width > 0.0
                && *height > 0.0
                // A third and two thirds may come to a little more than one.
                && x + width <= 1.0001
                && y + height <= 1.0001;
            if !inside {
                return Err(format!(
                    "motion.zones has {zone:?}; a zone is [x, y, width, height] in shares of the picture, within 0 to 1"
                ));
            }
        }
        Ok(())
    }
}

/// Columns of the grid that pictures are averaged to: noise goes, what matters stays. A picture of 640 pixels has as many blocks of a
/// JPEG, whose means are all that is decoded of it.
pub(super) const GRID_COLUMNS: usize = 80;

/// Time in which the background takes over 63 % of a difference that is noise or daylight, and of one that counts as change.
/// The second is what makes a parked car or a lamp part of the background.
const STILL_S: f32 = 5.0;
const CHANGED_S: f32 = 20.0;

/// From this share of changed points on, it is the light or the camera that changed, not something in front of it.
const EVERYTHING: f32 = 0.8;

/// Below this, brightness is noise, and its ratios mean nothing.
const DARK: f32 = 8.0;

/// Motion begins or ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MotionChange {
    /// Something moves.
    Started(MotionExtent),
    /// Nothing has moved for the off-delay.
    Ended,
}

/// Looks for motion in a row of pictures.
pub struct MotionDetector {
    config: Motion,
    background: Option<Background>,
    /// While something moves: when and where it did last.
    moving: Option<(Duration, MotionExtent)>,
}

struct Background {
    size_px: (usize, usize),
    grid: Grid,
    luma: Vec<f32>,
    /// Of each point, whether motion counts there.
    watched: Vec<bool>,
    at: Duration,
}

impl MotionDetector {
    /// A detector that has seen nothing yet.
    pub fn new(config: &Motion) -> MotionDetector {
        MotionDetector {
            config: config.clone(),
            background: None,
            moving: None,
        }
    }

    /// Looks at the picture taken at `now`, which never goes back.
    pub fn look(&mut self, image: &LumaImage, now: Duration) -> Option<MotionChange> {
        let extent = self.compare(image, now);
        let off_delay = Duration::from_secs(u64::from(self.config.off_delay_s));
        match &mut self.moving {
            None if extent.area >= self.config.area => {
                self.moving = Some((now, extent));
                Some(MotionChange::Started(extent))
            }
            None => None,
            Some((last, known)) => {
                if extent.area >= self.config.area_off.max(f32::MIN_POSITIVE) {
                    (*last, *known) = (now, extent);
                } else if now.saturating_sub(*last) >= off_delay {
                    self.moving = None;
                    return Some(MotionChange::Ended);
                }
                None
            }
        }
    }

    /// While something moves: where it did last.
    pub fn moving(&self) -> Option<MotionExtent> {
        self.moving.map(|(_, extent)| extent)
    }

    /// The pictures break off, and those that follow are others: true if motion ends by that.
    pub fn restart(&mut self) -> bool {
        self.background = None;
        self.moving.take().is_some()
    }

    /// What differs from the background, which then learns the picture.
    fn compare(&mut self, image: &LumaImage, now: Duration) -> MotionExtent {
        const NONE: MotionExtent = MotionExtent {
            area: 0.0,
            bounds: [0.0; 4],
        };
        let size_px = (image.width_px, image.height_px);
        if size_px.0 == 0 || size_px.1 == 0 {
            return NONE;
        }
        let background = match &mut self.background {
            Some(background) if background.size_px == size_px => background,
            _ => {
                let grid = Grid::of(size_px);
                self.background = Some(Background {
                    luma: grid.average(image),
                    watched: grid.watched(&self.config.zones),
                    size_px,
                    grid,
                    at: now,
                });
                return NONE;
            }
        };
        let grid = background.grid;
        let luma = background.grid.average(image);
        let threshold = f32::from(self.config.luma_threshold);
        let pairs = || luma.iter().copied().zip(background.luma.iter().copied());
        // Daylight and the camera's exposure make all points brighter or darker by about the same factor.
        let gain = median(pairs().map(|(new, old)| new.max(DARK) / old.max(DARK)));
        let changed: Vec<bool> = pairs()
            .map(|(new, old)| (new - gain * old).abs() > threshold)
            .collect();
        let other = pairs()
            .filter(|(new, old)| (new - old).abs() > threshold)
            .count();
        let seen = |i: &usize| changed[*i] && background.watched[*i];
        let watched = background
            .watched
            .iter()
            .filter(|watched| **watched)
            .count();
        let moved = (0..luma.len()).filter(seen).count();
        if other as f32 >= EVERYTHING * luma.len() as f32 {
            background.luma = luma;
            background.at = now;
            return NONE;
        }
        let bounds = grid.bounds((0..luma.len()).filter(seen));
        let past_s = now.saturating_sub(background.at).as_secs_f32();
        let learn = |time_s: f32| 1.0 - (-past_s / time_s).exp();
        let (still, hardly) = (learn(STILL_S), learn(CHANGED_S));
        for ((old, new), changed) in background.luma.iter_mut().zip(&luma).zip(&changed) {
            *old += (new - *old) * if *changed { hardly } else { still };
        }
        background.at = now;
        MotionExtent {
            area: moved as f32 / watched.max(1) as f32,
            bounds,
        }
    }
}

/// Rectangles of pixels, as square as the picture allows.
#[derive(Clone, Copy)]
struct Grid {
    columns: usize,
    rows: usize,
}

impl Grid {
    fn of((width_px, height_px): (usize, usize)) -> Grid {
        let columns = GRID_COLUMNS.min(width_px);
        let rows = (columns * height_px / width_px).clamp(1, height_px.min(4 * GRID_COLUMNS));
        Grid { columns, rows }
    }

    /// The mean of each rectangle, row by row.
    fn average(self, image: &LumaImage) -> Vec<f32> {
        let (width_px, height_px) = (image.width_px, image.height_px);
        let mut means = Vec::with_capacity(self.columns * self.rows);
        let mut sums = vec![0u32; width_px];
        for row in 0..self.rows {
            let (top, bottom) = (
                row * height_px / self.rows,
                (row + 1) * height_px / self.rows,
            );
            sums.fill(0);
            for line in image.pixels[top * width_px..bottom * width_px].chunks_exact(width_px) {
                for (sum, &luma) in sums.iter_mut().zip(line) {
                    *sum += u32::from(luma);
                }
            }
            for column in 0..self.columns {
                let left = column * width_px / self.columns;
                let right = (column + 1) * width_px / self.columns;
                let sum: u64 = sums[left..right].iter().map(|&sum| u64::from(sum)).sum();
                means.push(sum as f32 / ((right - left) * (bottom - top)) as f32);
            }
        }
        means
    }

    /// Whether the middle of each rectangle lies in a zone.
    fn watched(self, zones: &[[f32; 4]]) -> Vec<bool> {
        let middle = |i: usize| {
            (
                ((i % self.columns) as f32 + 0.5) / self.columns as f32,
                ((i / self.columns) as f32 + 0.5) / self.rows as f32,
            )
        };
        let inside = |(x, y): (f32, f32)| {
            zones.is_empty()
                || zones.iter().any(|[left, top, width, height]| {
                    (*left..=left + width).contains(&x) && (*top..=top + height).contains(&y)
                })
        };
        (0..self.columns * self.rows)
            .map(|i| inside(middle(i)))
            .collect()
    }

    /// The smallest rectangle around `points`: x, y, width and height as shares of the picture.
    fn bounds(self, points: impl Iterator<Item = usize>) -> [f32; 4] {
        let (mut left, mut top, mut right, mut bottom) = (self.columns, self.rows, 0, 0);
        for point in points {
            let (column, row) = (point % self.columns, point / self.columns);
            (left, right) = (left.min(column), right.max(column + 1));
            (top, bottom) = (top.min(row), bottom.max(row + 1));
        }
        if right == 0 {
            return [0.0; 4];
        }
        let share = |part: usize, whole: usize| part as f32 / whole as f32;
        [
            share(left, self.columns),
            share(top, self.rows),
            share(right - left, self.columns),
            share(bottom - top, self.rows),
        ]
    }
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut values: Vec<f32> = values.collect();
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}
