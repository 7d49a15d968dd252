//! The jobs that were asked for on the bus: who owns them, how far they are, and how many one user may have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use zbus::Variant;

use super::error::Error;
use super::values::Dict;
use crate::report::{ErrorBody, ErrorCode, JobState, JobUpdate, Origin, Reply};

/// Ended jobs of one user that are kept; the oldest go first.
const ENDED_PER_USER: usize = 32;

/// A job on the bus.
pub(super) struct Job {
    pub(super) kind: &'static str,
    /// The user that may cancel it and read its result.
    pub(super) owner: u32,
    /// The connection that asked, and that is told.
    pub(super) sender: String,
    /// Microseconds since 1970.
    pub(super) created_us: u64,
    pub(super) state: watch::Sender<JobState>,
    pub(super) progress: f64,
    result: Option<Result<Reply, ErrorBody>>,
    /// The daemon has the request.
    sent: bool,
    /// The caller vanished.
    gone: bool,
    ended: Option<Instant>,
    told: (JobState, f64),
}

impl Job {
    fn active(&self) -> bool {
        self.ended.is_none()
    }
}

/// A call that is being read, and not a job yet.
struct Caller {
    sender: String,
    uid: Option<u32>,
}

/// What the others on the bus are to be told of a job.
pub(super) struct JobNews {
    pub(super) id: String,
    pub(super) sender: String,
    pub(super) changed: Dict,
    pub(super) finished: Option<JobState>,
}

/// All of them, by id.
#[derive(Default)]
pub(super) struct Jobs {
    callers: BTreeMap<String, Caller>,
    jobs: BTreeMap<String, Job>,
}

impl Jobs {
    /// A call begins: from now on it is noticed if its sender vanishes.
    pub(super) fn begin(&mut self, id: &str, sender: &str) {
        let caller = Caller {
            sender: sender.to_owned(),
            uid: None,
        };
        self.callers.insert(id.to_owned(), caller);
    }

    /// The call's user is known: counts what the user has.
    pub(super) fn count(&mut self, id: &str, uid: u32, most: usize) -> Result<(), Error> {
        let calls = self
            .callers
            .values()
            .filter(|caller| caller.uid == Some(uid))
            .count();
        let jobs = self
            .jobs
            .values()
            .filter(|job| job.owner == uid && job.active())
            .count();
        if calls + jobs >= most {
            return Err(Error::QuotaExceeded(format!(
                "user {uid} has {most} jobs already (dbus.jobs_per_user); wait for one, or cancel it"
            )));
        }
        let caller = self.callers.get_mut(id).ok_or_else(vanished)?;
        caller.uid = Some(uid);
        Ok(())
    }

    /// The call ended, whether a job came of it or not.
    pub(super) fn end(&mut self, id: &str) {
        self.callers.remove(id);
    }

    /// The call becomes a job, which the daemon does not have yet.
    pub(super) fn create(&mut self, id: &str, kind: &'static str) -> Result<(), Error> {
        let Caller { sender, uid } = self.callers.remove(id).ok_or_else(vanished)?;
        let owner = uid.ok_or_else(vanished)?;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let job = Job {
            kind,
            owner,
            sender,
            created_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            state: watch::Sender::new(JobState::Queued),
            progress: 0.0,
            result: None,
            sent: false,
            gone: false,
            ended: None,
            told: (JobState::Queued, 0.0),
        };
        self.jobs.insert(id.to_owned(), job);
        Ok(())
    }

    /// Whether the job's request may go to the daemon: its caller is still there. After that, a vanishing caller is told as a cancel.
    pub(super) fn send(&mut self, id: &str) -> bool {
        let job = self.jobs.get_mut(id).filter(|job| !job.gone);
        job.map(|job| job.sent = true).is_some()
    }

    /// Forgets a job that did not come to be.
    pub(super) fn drop(&mut self, id: &str) {
        self.jobs.remove(id);
    }

    pub(super) fn get(&self, id: &str) -> Option<&Job> {
        self.jobs.get(id)
    }

    /// In the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Job)> {
        self.jobs.iter()
    }

    /// Callers left the bus: the jobs that the daemon is to end, with who had asked.
    pub(super) fn forget_callers(&mut self, left: impl Fn(&str) -> bool) -> Vec<(String, Origin)> {
        self.callers.retain(|_, caller| !left(&caller.sender));
        let mut to_cancel = Vec::new();
        for (id, job) in self
            .jobs
            .iter_mut()
            .filter(|(_, job)| job.active() && !job.gone && left(&job.sender))
        {
            job.gone = true;
            if job.sent {
                to_cancel.push((
                    id.clone(),
                    Origin::Bus {
                        uid: job.owner,
                        sender: job.sender.clone(),
                    },
                ));
            }
        }
        to_cancel
    }

    /// The daemon tells how far a job is; whether it is one of these.
    pub(super) fn update(&mut self, update: &JobUpdate) -> bool {
        let Some(job) = self
            .jobs
            .get_mut(&update.header.id)
            .filter(|job| job.active())
        else {
            return false;
        };
        if let Some(progress) = update.progress {
            job.progress = f64::from(progress).clamp(0.0, 1.0);
        }
        if update.state.has_ended() {
            job.ended = Some(Instant::now());
            job.result = Some(match update.state {
                JobState::Done => {
                    job.progress = 1.0;
                    Ok(update.reply.clone().unwrap_or_default())
                }
                state => Err(update.error.clone().unwrap_or_else(|| without_words(state))),
            });
        }
        job.state.send_replace(update.state);
        true
    }

    /// What was answered.
    pub(super) fn result(&self, id: &str) -> Result<&Reply, Error> {
        let job = self.jobs.get(id).ok_or_else(|| no_job(id))?;
        match &job.result {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(error)) => Err(error.clone().into()),
            None => Err(Error::Busy(
                "the job has no result yet; the signal Finished tells when".to_owned(),
            )),
        }
    }

    /// What changed since the last time that this was asked.
    pub(super) fn news(&mut self) -> Vec<JobNews> {
        let mut news = Vec::new();
        for (id, job) in &mut self.jobs {
            let now = (*job.state.borrow(), job.progress);
            let before = std::mem::replace(&mut job.told, now);
            let mut changed = Dict::new();
            if now.0 != before.0 {
                changed.insert("State".to_owned(), Variant::from(state_name(now.0)));
            }
            if now.1 != before.1 {
                changed.insert("Progress".to_owned(), Variant::from(now.1));
            }
            if !changed.is_empty() {
                let finished = (now.0 != before.0 && !job.active()).then_some(now.0);
                news.push(JobNews {
                    id: id.clone(),
                    sender: job.sender.clone(),
                    changed,
                    finished,
                });
            }
        }
        news
    }

    /// Takes out the jobs that ended too long ago, or that too many of the same user came after; with their last state.
    pub(super) fn expire(&mut self, keep: Duration) -> Vec<(String, JobState)> {
        let mut ended: Vec<(u32, Instant, String)> = Vec::new();
        for (id, job) in &self.jobs {
            ended.extend(job.ended.map(|at| (job.owner, at, id.clone())));
        }
        // Of each user, the newest first.
        ended.sort_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
        let mut removed = Vec::new();
        let mut of_user = (None, 0);
        for (owner, at, id) in ended {
            of_user = if of_user.0 == Some(owner) {
                (of_user.0, of_user.1 + 1)
            } else {
                (Some(owner), 1)
            };
            if of_user.1 > ENDED_PER_USER || at.elapsed() >= keep {
                let job = self.jobs.remove(&id);
                removed.extend(job.map(|job| (id, *job.state.borrow())));
            }
        }
        removed
    }

    /// When [`Jobs::expire`] has something to do at the latest.
    pub(super) fn next_expiry(&self, keep: Duration) -> Option<Instant> {
        self.jobs
            .values()
            .filter_map(|job| job.ended)
            .min()
            .map(|at| at + keep)
    }
}

/// As the bus calls it.
pub(super) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

pub(super) fn no_job(id: &str) -> Error {
    Error::NotFound(format!(
        "there is no job {id} any more (dbus.keep_finished_s)"
    ))
}

fn vanished() -> Error {
    Error::Cancelled("the caller left the bus".to_owned())
}

fn without_words(state: JobState) -> ErrorBody {
    let (code, message) = match state {
        JobState::Cancelled => (ErrorCode::Cancelled, "the job was cancelled"),
        _ => (ErrorCode::Failed, "the job failed; the log says why"),
    };
    ErrorBody {
        code,
        message: message.to_owned(),
    }
}
