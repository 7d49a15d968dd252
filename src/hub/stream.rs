//! Bytes of a file in order, over as many connections as it takes.

use std::io::Read;
use std::ops::Range;

use ureq::BodyReader;
use ureq::http::header;

use super::client::{Answer, Client};
use super::error::HubError;
use super::listing::{RemoteFile, Repository};
use super::refusal::told;

/// A part of a file on its way.
pub struct Stream<'a> {
    client: &'a Client,
    repository: &'a Repository,
    file: &'a RemoteFile,
    /// What is still to come.
    left: Range<u64>,
    body: Option<(BodyReader<'static>, String)>,
    failures: u32,
}

impl<'a> Stream<'a> {
    /// Nothing is asked before the first read.
    pub fn new(
        client: &'a Client,
        repository: &'a Repository,
        file: &'a RemoteFile,
        range: Range<u64>,
    ) -> Stream<'a> {
        Stream {
            client,
            repository,
            file,
            left: range,
            body: None,
            failures: 0,
        }
    }

    /// What is still to come: from the place of the next byte to the end.
    pub fn left(&self) -> &Range<u64> {
        &self.left
    }

    /// Reads some bytes, at least one unless all have come. A connection that breaks is made anew, from where it was.
    ///
    /// # Errors
    /// The hub refuses, does not answer for long, or has another file now.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HubError> {
        let left = self.left.end.saturating_sub(self.left.start);
        let most = left.min(buffer.len() as u64) as usize;
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.read_once(&mut buffer[..most]) {
                Ok(n) => {
                    self.failures = 0;
                    self.left.start += n as u64;
                    return Ok(n);
                }
                Err(error) => {
                    self.body = None;
                    self.client.pause(error, &mut self.failures)?;
                }
            }
        }
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize, HubError> {
        let (body, host) = match &mut self.body {
            Some(open) => open,
            closed => closed.insert(open(self.client, self.repository, self.file, &self.left)?),
        };
        match body.read(buffer) {
            Ok(0) => Err(HubError::Unreachable {
                host: host.clone(),
                reason: format!("ends {} before its end", self.file.name),
            }),
            Ok(n) => Ok(n),
            Err(error) => Err(told(host, &ureq::Error::Io(error))),
        }
    }
}

/// Asks for the rest of a part, and looks whether that is what comes.
fn open(
    client: &Client,
    repository: &Repository,
    file: &RemoteFile,
    left: &Range<u64>,
) -> Result<(BodyReader<'static>, String), HubError> {
    let Answer {
        response,
        host,
        commit,
        etag,
    } = client.ask_file(repository, &file.name, left)?;
    let changed = |reason: String| HubError::Changed {
        file: file.name.clone(),
        reason,
    };
    if commit.is_some_and(|commit| !commit.eq_ignore_ascii_case(&repository.commit)) {
        return Err(changed("another commit".to_owned()));
    }
    if let (Some(found), Some(expected)) = (etag, &file.etag)
        && found != *expected
    {
        return Err(changed("another hash".to_owned()));
    }
    let text = |name| response.headers().get(name)?.to_str().ok();
    let packed = text(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
    if let Some(encoding) = packed {
        return Err(HubError::NotTheHub {
            host,
            reason: format!("it packs what it sends as {encoding:?}"),
        });
    }
    let is_whole = left.start == 0 && left.end == file.size;
    match response.status().as_u16() {
        206 => {
            let (start, total) = text(header::CONTENT_RANGE)
                .and_then(content_range)
                .ok_or_else(|| HubError::NotTheHub {
                    host: host.clone(),
                    reason: "it sends a part without saying which".to_owned(),
                })?;
            if total.is_some_and(|total| total != file.size) {
                return Err(changed("another size".to_owned()));
            }
            if start != left.start {
                return Err(HubError::NoRanges {
                    host,
                    file: file.name.clone(),
                    status: 206,
                });
            }
        }
        200 if is_whole => {}
        416 => return Err(changed("it is shorter".to_owned())),
        status => {
            return Err(HubError::NoRanges {
                host,
                file: file.name.clone(),
                status,
            });
        }
    }
    Ok((response.into_body().into_reader(), host))
}

/// Start and total of `bytes 0-9/100`; `*` for a total that is not known.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, Some(100))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */100", "items 1-2/3", "bytes 1-2", "bytes a-2/3"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
