//! What was seen is written into Frigate's events: each has its own time, so that none waits for another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::frigate::{Api, Trouble};

/// Pauses between two tries: a restart of Frigate takes half a minute.
const PAUSES_S: [u64; 8] = [1, 2, 5, 10, 30, 60, 120, 300];
/// So many of them where Frigate does not have the event: it is as good as gone.
const PAUSES_OF_ABSENT: usize = 3;
/// Descriptions that wait at most.
const WAITING: usize = 64;

/// A description that is not in Frigate yet.
#[derive(Clone)]
struct Description {
    id: String,
    text: String,
    tries: usize,
    due: Instant,
}

/// Those that wait. They outlive the door.
#[derive(Default)]
pub(super) struct Unwritten {
    list: Mutex<VecDeque<Description>>,
    added: Notify,
    tried: Notify,
}

impl Unwritten {
    fn list(&self) -> MutexGuard<'_, VecDeque<Description>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is written as soon as Frigate takes it.
    pub(super) fn add(&self, id: &str, text: &str) {
        let mut list = self.list();
        if list.len() >= WAITING
            && let Some(oldest) = list.pop_front()
        {
            log::warn!(
                "frigate: {WAITING} descriptions wait to be written back; that of {} is not",
                oldest.id
            );
        }
        list.push_back(Description {
            id: id.to_owned(),
            text: text.to_owned(),
            tries: 0,
            due: Instant::now(),
        });
        self.added.notify_one();
    }

    /// None is written any more.
    pub(super) fn clear(&self) {
        self.list().clear();
    }

    /// Waits until each was tried once, within the limit.
    pub(super) async fn all_tried(&self, limit: Duration) {
        let is_new = |description: &Description| description.tries == 0;
        timeout(limit, async {
            while self.list().iter().any(is_new) {
                self.tried.notified().await;
            }
        })
        .await
        .ok();
    }

    /// Writes what waits, the one whose time comes first, one at a time.
    pub(super) async fn write(&self, api: Api) {
        let api = Arc::new(Mutex::new(api));
        loop {
            let next = self.list().iter().min_by_key(|next| next.due).cloned();
            let Some(next) = next else {
                self.added.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(next.due) => {}
                () = self.added.notified() => continue,
            }
            let (api, Description { id, text, .. }) = (Arc::clone(&api), next.clone());
            let written = tokio::task::spawn_blocking(move || {
                let mut api = api.lock().unwrap_or_else(PoisonError::into_inner);
                api.describe(&id, &text)
            });
            let written = written
                .await
                .unwrap_or_else(|_| Err(Trouble::Lasting("could not be asked".to_owned())));
            self.tried(&next.id, written);
            self.tried.notify_one();
        }
    }

    /// What came of a try.
    fn tried(&self, id: &str, written: Result<(), Trouble>) {
        let mut list = self.list();
        let Some(at) = list.iter().position(|description| description.id == id) else {
            return; // others took its place
        };
        let trouble = match written {
            Ok(()) => {
                log::debug!("frigate: {id} has its description");
                list.remove(at);
                return;
            }
            Err(trouble) => trouble,
        };
        let pauses = match trouble {
            Trouble::Passing(_) => &PAUSES_S[..],
            Trouble::Absent(_) => &PAUSES_S[..PAUSES_OF_ABSENT],
            Trouble::Lasting(_) => &[],
        };
        let (description, words) = (&mut list[at], trouble.in_words());
        match pauses.get(description.tries) {
            Some(&pause) => {
                log::debug!("frigate: Frigate {words}; {id} is written again in {pause} s");
                description.tries += 1;
                description.due = Instant::now() + Duration::from_secs(pause);
            }
            None => {
                log::warn!(
                    "frigate: the description of {id} could not be written back: Frigate {words}"
                );
                list.remove(at);
            }
        }
    }
}
