//! Answers to one request on their way to a client that waits for them on its connection.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, OwnedPermit};

use ulid::Ulid;

use crate::report::{Cancel, JobUpdate, Name, Origin, Payload, ReplyTo, Request};

/// Updates that may wait for a client.
const MAX_WAITING: usize = 32;

/// A request whose answers are waited for. Dropped before it ended, its job is cancelled.
pub(super) struct Asked {
    origin: Origin,
    job: String,
    replies: Replies,
    requests: mpsc::Sender<Request>,
    ended: bool,
}

impl Asked {
    /// Asks the daemon for something; nothing where it has too much to do.
    pub(super) fn new(
        requests: &mpsc::Sender<Request>,
        origin: Origin,
        payload: Payload,
    ) -> Option<Asked> {
        let (reply, replies) = channel();
        let job = Ulid::generate().to_string();
        let request = Request::new(job.clone(), origin.clone(), None, payload, reply);
        requests.try_send(request).ok()?;
        Some(Asked {
            origin,
            job,
            replies,
            requests: requests.clone(),
            ended: false,
        })
    }

    /// The job's name.
    pub(super) fn job(&self) -> &str {
        &self.job
    }

    /// What the daemon tells next; nothing where it ended without an answer.
    pub(super) async fn next(&mut self) -> Option<JobUpdate> {
        let update = self.replies.next().await;
        self.ended |= update
            .as_ref()
            .is_none_or(|update| update.state.has_ended());
        update
    }

    /// How it ended, once it has.
    pub(super) async fn end(&mut self) -> Option<JobUpdate> {
        let update = self.replies.end().await;
        self.ended = true;
        update
    }

    /// How it ended, where it has already.
    pub(super) fn try_end(&mut self) -> Option<JobUpdate> {
        let update = self.replies.try_end();
        self.ended |= update.is_some();
        update
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Ok(job) = Name::new("job", self.job.clone()) {
            let id = Ulid::generate().to_string();
            let cancel = Payload::Cancel(Cancel::Job(job));
            let cancel = Request::new(id, self.origin.clone(), None, cancel, ReplyTo::nobody());
            // Where the daemon has no ear for it, the job ends by its deadline.
            self.requests.try_send(cancel).ok();
        }
    }
}

/// The client's end.
struct Replies(mpsc::Receiver<JobUpdate>);

/// The daemon's end. It never waits: pieces of the answer for which a slow client has left no room come with what finds room next, at
/// the latest with the end, which has a place of its own.
struct Line {
    sender: mpsc::Sender<JobUpdate>,
    end: Option<OwnedPermit<JobUpdate>>,
    /// Pieces that wait for room: of the text, and of thoughts.
    pieces: [String; 2],
}

/// A way back for one request.
fn channel() -> (ReplyTo, Replies) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING + 1);
    let line = Mutex::new(Line {
        end: sender.clone().try_reserve_owned().ok(),
        sender,
        pieces: Default::default(),
    });
    let reply = ReplyTo::new(move |update| {
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        line.tell(update.clone());
    });
    (reply, Replies(receiver))
}

impl Line {
    fn tell(&mut self, mut update: JobUpdate) {
        let told = [&mut update.partial, &mut update.thoughts];
        for (waiting, told) in self.pieces.iter_mut().zip(told) {
            if !waiting.is_empty() {
                let piece = told.take().unwrap_or_default();
                *told = Some(std::mem::take(waiting) + &piece);
            }
        }
        if update.state.has_ended() {
            self.end.take().map(|end| end.send(update));
        } else if let Err(TrySendError::Full(update)) = self.sender.try_send(update) {
            self.pieces = [update.partial, update.thoughts].map(Option::unwrap_or_default);
        }
    }
}

impl Replies {
    /// What the daemon tells next; nothing where it ended without an answer.
    async fn next(&mut self) -> Option<JobUpdate> {
        self.0.recv().await
    }

    /// How it ended, once it has.
    async fn end(&mut self) -> Option<JobUpdate> {
        while let Some(update) = self.next().await {
            if update.state.has_ended() {
                return Some(update);
            }
        }
        None
    }

    /// How it ended, where it has already.
    fn try_end(&mut self) -> Option<JobUpdate> {
        while let Ok(update) = self.0.try_recv() {
            if update.state.has_ended() {
                return Some(update);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Header, JobState, Origin, Reply};

    #[test]
    fn a_slow_client_misses_no_piece_and_no_end() {
        let header = Header {
            id: "id".to_owned(),
            origin: Origin::Wyoming,
            transaction: None,
            kind: "ask",
            timeout: None,
        };
        let (reply, mut replies) = channel();
        let pieces: Vec<String> = (0..1000).map(|n| format!("{n} ")).collect();
        for piece in &pieces {
            reply.tell(&JobUpdate {
                partial: Some(piece.clone()),
                thoughts: Some(piece.clone()),
                ..JobUpdate::new(&header, JobState::Running)
            });
        }
        reply.tell(&JobUpdate::end(&header, Ok(Reply::default())));
        drop(reply);
        let mut told = Vec::new();
        while let Ok(update) = replies.0.try_recv() {
            told.push(update);
        }
        assert_eq!(told.len(), MAX_WAITING + 1);
        let text = |of: fn(&JobUpdate) -> Option<&String>| -> String {
            told.iter().filter_map(of).cloned().collect()
        };
        assert_eq!(text(|told| told.partial.as_ref()), pieces.concat());
        assert_eq!(text(|told| told.thoughts.as_ref()), pieces.concat());
        assert_eq!(told.last().map(|last| last.state), Some(JobState::Done));
        assert!(
            told.iter()
                .rev()
                .skip(1)
                .all(|told| !told.state.has_ended())
        );
    }

    #[test]
    fn a_client_waits_for_the_end_or_for_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (reply, mut replies) = channel();
        assert_eq!(replies.try_end(), None);
        drop(reply);
        assert_eq!(runtime.block_on(replies.end()), None);
    }
}
