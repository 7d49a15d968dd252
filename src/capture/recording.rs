//! Raw samples of a file or a pipe as if a microphone had given them, as fast as they can be read: sound that knows no clock, so
//! that a day of it can be heard in an hour.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use super::listener::{Heard, Sound};
use super::supervise::Unavailable;
use crate::features::wav::Encoding;

/// Bytes that are read together at most: an eighth of a second.
const READ_BYTES: usize = 4096;

/// A pipe that is empty is looked at so often.
const EMPTY: Duration = Duration::from_millis(5);

/// 16 kHz, mono, 16 bits little-endian.
pub(super) struct Recording {
    path: String,
    file: File,
    buffer: [u8; READ_BYTES],
    /// Bytes of a sample whose other half has not come yet.
    kept: usize,
}

impl Recording {
    /// Opens a file, or a pipe whether somebody writes to it or not.
    pub(super) fn open(path: &str) -> Result<Recording, Unavailable> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| Unavailable(format!("cannot read `{path}`: {error}")))?;
        Ok(Recording {
            path: path.to_owned(),
            file,
            buffer: [0; READ_BYTES],
            kept: 0,
        })
    }
}

impl Sound for Recording {
    fn read(&mut self, wait: Duration, samples: &mut Vec<f32>) -> Result<Heard, Unavailable> {
        let path = &self.path;
        match self.file.read(&mut self.buffer[self.kept..]) {
            Ok(0) => Err(Unavailable(format!(
                "`{path}` has ended, or nobody writes to it; it is read again from where it begins"
            ))),
            Ok(read) => {
                let bytes = self.kept + read;
                let whole = bytes - bytes % 2;
                Encoding::S16.decode(&self.buffer[..whole], samples);
                self.buffer.copy_within(whole..bytes, 0);
                self.kept = bytes - whole;
                Ok(Heard {
                    any: whole > 0,
                    overrun: false,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(wait.min(EMPTY));
                Ok(Heard::default())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Heard::default()),
            Err(error) => Err(Unavailable(format!("cannot read `{path}`: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const WAIT: Duration = Duration::from_millis(1);

    #[test]
    fn a_pipe_gives_samples_whole_and_ends_with_its_writer() {
        let (reader, mut writer) = io::pipe().unwrap();
        // A descriptor of this process by its name, opened anew as a microphone's pipe is.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let mut sound = Recording::open(&path).unwrap();
        let mut samples = Vec::new();
        assert_eq!(sound.read(WAIT, &mut samples), Ok(Heard::default()));
        let any = Heard {
            any: true,
            overrun: false,
        };
        // A sample and a half: 0x4000 is half of full scale, 0xc000 minus that.
        writer.write_all(&[0x00, 0x40, 0x00]).unwrap();
        assert_eq!(sound.read(WAIT, &mut samples), Ok(any));
        assert_eq!(samples, [0.5]);
        writer.write_all(&[0xc0]).unwrap();
        assert_eq!(sound.read(WAIT, &mut samples), Ok(any));
        assert_eq!(samples, [0.5, -0.5]);
        drop(writer);
        let Unavailable(reason) = sound.read(WAIT, &mut samples).unwrap_err();
        assert!(reason.contains("has ended"), "{reason}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let Err(Unavailable(reason)) = Recording::open("absent.s16") else {
            panic!("it is not there");
        };
        assert!(reason.contains("`absent.s16`"), "{reason}");
    }
}
