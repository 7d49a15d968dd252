//! A job on its way: sent, looked after, and sent again where it was lost, until it comes back.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::familiar::First;
use super::job::{Job, Outcome, Work, pcm};
use super::letter::Part;
use super::names::{ACK_WAIT, Names};
use super::pieces::Pieces;
use super::sending::{PAUSE, Sent, Trouble};
use super::source::{News, Source, Taker};
use super::voice::Voice;
use crate::report::{Attachment, ErrorCode};
use crate::utterance::Progress;

/// Between two looks whether a job is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// The same while somebody speaks: whoever hears it waits for what is said.
const LOOK_SPOKEN: Duration = Duration::from_millis(20);

/// Between two looks whether the server still has a job.
const STILL_THERE: Duration = ACK_WAIT;

/// Why a job has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was not wanted any more; where it was then.
    Over(String),
    /// There is no room for it.
    Full(String),
    /// A newer picture of its camera has taken its place.
    Replaced,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage<'a> {
    /// A worker of that name has it.
    Taken(&'a str),
    /// What has come of its answer since the last piece, where that is told while it comes.
    Piece(&'a str),
    /// What its model has thought since the last time, before it answers.
    Thoughts(&'a str),
}

/// A job that is being carried.
struct Carried<'a> {
    source: &'a Source,
    job: &'a Job,
    work: Work,
    body: Bytes,
    sent: Option<Sent>,
    sending: u32,
    taker: Option<Taker>,
    /// When that one told last that it has it.
    heard: Instant,
    /// Who is asked before others.
    first: Option<First>,
}

impl Source {
    /// Sends a job, and waits for what it becomes. `is_over` tells that it is not wanted any more, `tell` is told how far it is.
    ///
    /// # Errors
    /// It was not wanted any more before it came back, found no room, or was replaced by a newer picture.
    pub async fn carry(
        &self,
        job: &Job,
        is_over: &(dyn Fn() -> bool + Sync),
        tell: &(dyn Fn(Stage<'_>) + Sync),
    ) -> Result<Outcome, Lost> {
        self.carry_voice(job, None, is_over, tell).await
    }

    /// The same of speech whose sound comes while the job is away: `voice` goes to the worker that takes it, as it is spoken. Where none
    /// does before it is over, it goes whole.
    ///
    /// # Errors
    /// As of [`Source::carry`].
    pub async fn carry_voice(
        &self,
        job: &Job,
        mut voice: Option<&mut Voice<'_>>,
        is_over: &(dyn Fn() -> bool + Sync),
        tell: &(dyn Fn(Stage<'_>) + Sync),
    ) -> Result<Outcome, Lost> {
        let mut news = self.open(job);
        let beginning = job.work.beginning();
        let mut pieces = Pieces::default();
        let mut trouble = None;
        let mut carried = Carried {
            source: self,
            job,
            work: job.work.clone(),
            body: Bytes::new(),
            sent: None,
            sending: 0,
            taker: None,
            heard: Instant::now(),
            first: beginning
                .as_ref()
                .and_then(|begins| self.first(begins, job.work.needs())),
        };
        let look = match voice {
            Some(_) => LOOK_SPOKEN,
            None => LOOK,
        };
        let written = carried.write();
        let mut end = loop {
            if let Err(words) = &written {
                break Err(Lost::Full(words.clone()));
            }
            if let Some(voice) = &mut voice
                && let Err(lost) = carried.speak(voice).await
            {
                break Err(lost);
            }
            carried.ask_others().await;
            // What came meanwhile was taken off by whoever did it.
            if carried.is_lost().await && news.is_empty() {
                log::info!(target: "fleet", "the server has lost job {}: it is sent again", job.id);
                carried.again();
            }
            if carried.sent.is_none() && carried.may_be_sent() {
                let (queue, live) = (carried.queue(), carried.is_live());
                let sending = carried.sending;
                let sent = self.post.send(job, (&queue, live), &carried.body, sending);
                match sent.await {
                    Ok(there) => carried.sent = Some(there),
                    Err(Trouble::Full(words)) => break Err(Lost::Full(words)),
                    Err(Trouble::Other(words)) => {
                        trouble = Some(words);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            match tokio::time::timeout(look, news.recv()).await {
                Ok(Some(News::Done(outcome))) => break Ok(*outcome),
                Ok(Some(News::Replaced) | None) => break Err(Lost::Replaced),
                Ok(Some(News::Taken(by))) => {
                    tell(Stage::Taken(&by.node));
                    pieces.of(&by.session);
                    if let Some(voice) = &mut voice {
                        voice.from(0);
                    }
                    carried.taker = Some(by);
                    carried.heard = Instant::now();
                }
                Ok(Some(News::Works)) => carried.heard = Instant::now(),
                Ok(Some(News::Left)) => carried.taker = None,
                Ok(Some(News::Misses(at))) => {
                    if let Some(voice) = &mut voice {
                        voice.from(at);
                    }
                }
                Ok(Some(News::Piece(of, at, text))) => {
                    if let Some(piece) = pieces.take(of, at, &text) {
                        tell(stage(of, &piece));
                    }
                }
                Err(_) => {}
            }
            if news.is_empty() && is_over() {
                let able = job.work.needs().in_words();
                let waits = || {
                    trouble.unwrap_or_else(|| format!("it waits for a worker of the fleet{able}"))
                };
                let taker = carried.taker.as_ref();
                break Err(Lost::Over(
                    taker.map_or_else(waits, |taker| format!("{} has it", taker.node)),
                ));
            }
        };
        self.forget(&job.id);
        let Carried {
            sent, body, taker, ..
        } = carried;
        if let (Ok(_), Some(beginning), Some(taker)) = (&end, beginning, taker) {
            self.knows(beginning, &taker.session);
        }
        self.post.close(job, sent, end.is_ok(), &body).await;
        if let Ok(outcome) = &mut end {
            if job.work.streams() {
                pieces.finish(&mut outcome.result, |of, rest| tell(stage(of, rest)));
            }
            let poison = matches!(&outcome.result, Err(error) if error.code == ErrorCode::Poison);
            self.count(poison);
        }
        end
    }
}

/// A piece, to be told.
fn stage(of: Part, piece: &str) -> Stage<'_> {
    match of {
        Part::Text => Stage::Piece(piece),
        Part::Thoughts => Stage::Thoughts(piece),
    }
}

impl Carried<'_> {
    /// Makes the message of what is to be done.
    fn write(&mut self) -> Result<(), String> {
        let body = serde_json::to_vec(&self.work);
        self.body = body
            .map_err(|error| format!("it cannot be written: {error}"))?
            .into();
        Ok(())
    }

    /// Whether it is speech whose sound comes.
    fn is_live(&self) -> bool {
        self.work.needs().live
    }

    /// What comes goes only where somebody hears it.
    fn may_be_sent(&self) -> bool {
        !self.is_live() || self.source.hears_live()
    }

    /// It goes anew, and what went before does not count.
    fn again(&mut self) {
        self.sent = None;
        self.taker = None;
        self.sending += 1;
        self.source.count_from(&self.job.id, self.sending);
    }

    /// The queue where it goes.
    fn queue(&self) -> String {
        match &self.first {
            Some(first) => Names::own(&first.session),
            None => self.work.needs().name().to_owned(),
        }
    }

    /// Whoever was asked first has not taken it, or is gone: it goes to all.
    async fn ask_others(&mut self) {
        let is_over = |first: &First| {
            let gone = !self.source.is_there(&first.session);
            gone || (self.taker.is_none() && first.is_over())
        };
        if self.first.as_ref().is_some_and(is_over) {
            self.first = None;
            if let Some(sent) = self.sent.take() {
                sent.withdraw().await;
            }
            self.again();
        }
    }

    /// Whether the server has the job no more, and nobody works on it.
    async fn is_lost(&mut self) -> bool {
        let Some(sent) = self
            .sent
            .as_mut()
            .filter(|sent| sent.at.elapsed() > STILL_THERE)
        else {
            return false;
        };
        // A worker that has it brings it back, whatever the server lost; and it tells so every second.
        let is_worked_on = self.taker.is_some() && self.heard.elapsed() < STILL_THERE;
        sent.is_gone().await && !is_worked_on
    }

    /// Sends what has been said; all of it as one message, where it is over and nobody has begun to hear it.
    async fn speak(&mut self, voice: &mut Voice<'_>) -> Result<(), Lost> {
        let (said, progress) = voice.said();
        if progress == Progress::Cancelled {
            return Err(Lost::Over("whoever spoke is gone".to_owned()));
        }
        if !self.is_live() {
            return Ok(());
        }
        let is_heard = self.taker.is_some() && self.source.hears_live();
        if !progress.is_open()
            && !is_heard
            && let Work::Speech { sound, .. } = &mut self.work
        {
            *sound = Some(Attachment(pcm(said).into()));
            if let Err(words) = self.write() {
                return Err(Lost::Full(words));
            }
            self.first = None;
            if let Some(sent) = self.sent.take() {
                sent.withdraw().await;
            }
            self.again();
        } else if self.taker.is_some() {
            for message in voice.news() {
                self.source.post.say(&self.job.id, message).await;
            }
        }
        Ok(())
    }
}
