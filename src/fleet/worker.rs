//! Whoever has a model and works for others: it takes jobs when it is idle, the most urgent first, and a few beside them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use ulid::Ulid;

use super::connect::Link;
use super::duty::{ANSWERS_WITHIN, Duty, Hand, origin};
use super::error::FleetError;
use super::letter::Letter;
use super::names::{Kind, Needs, QUEUES};
use super::roster::{self, Member};
use super::source::Source;
use crate::report::{Cancel, ModelCard, Name, Payload, ReplyTo, Request};

/// Between two looks for work that no bell told of.
const LOOK: Duration = Duration::from_secs(1);

/// Between two looks whether the board has done its own work, whose end nobody tells.
const LOOK_BUSY: Duration = Duration::from_millis(20);

/// So long idle boards go first at an utterance that a busy one could take.
const COURTESY: Duration = Duration::from_millis(150);

/// From its third delivery on a job is done alone: were it to take this worker with it, others would seem to have done so.
const ALONE_FROM: i64 = 3;

/// Whether the board has nothing else to do.
type Idle = dyn Fn() -> bool + Send + Sync;

/// A job that a worker has.
struct Held {
    kind: Kind,
    /// What the daemon calls it: it may be the same board's, where its own name is taken.
    request: String,
    is_cancelled: Arc<AtomicBool>,
    /// Nothing is done beside it.
    alone: bool,
}

/// A board that works for others.
pub struct Worker {
    hand: Arc<Hand>,
    can: Needs,
    is_idle: Box<Idle>,
    /// Jobs that it does together.
    answers: usize,
    /// Jobs that it has now.
    has: Mutex<BTreeMap<String, Held>>,
    done: AtomicU64,
    failed: AtomicU64,
    /// Time that its jobs took, milliseconds.
    took_ms: AtomicU64,
}

impl Worker {
    /// Begins to work, and to tell the fleet of this board: what it sends is told by `source`, where it does.
    ///
    /// Jobs go to `requests`, as from any door; the first is taken while `is_idle` says so, and up to `answers` are done together.
    pub fn start(
        link: &Link,
        card: &ModelCard,
        requests: mpsc::Sender<Request>,
        is_idle: impl Fn() -> bool + Send + Sync + 'static,
        answers: usize,
        source: Option<&Arc<Source>>,
    ) -> Arc<Worker> {
        let worker = Arc::new(Worker {
            hand: Arc::new(Hand {
                link: link.clone(),
                session: Ulid::generate().to_string(),
                model: card.name.clone(),
                requests,
                silent: Mutex::default(),
            }),
            can: Needs {
                sees: card.sees,
                hears: card.hears,
                live: card.hears,
                thinks: card.thinks.can(),
            },
            is_idle: Box::new(is_idle),
            answers,
            has: Mutex::default(),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            took_ms: AtomicU64::new(0),
        });
        let (teller, source) = (Arc::clone(&worker), source.cloned());
        roster::tell(link, move || {
            let member = teller.member();
            match &source {
                Some(source) => source.member(member),
                None => member,
            }
        });
        tokio::spawn(Arc::clone(&worker).work());
        worker
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        // Every change is complete before anything in it could panic.
        self.has.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self) -> Member {
        let done = self.done.load(Ordering::Relaxed);
        let took_ms = self.took_ms.load(Ordering::Relaxed) as f64;
        Member {
            model: self.hand.model.clone(),
            sees: self.can.sees,
            hears: self.can.hears,
            live: self.can.live,
            thinks: self.can.thinks,
            busy: !self.lock().is_empty() || !(self.is_idle)(),
            done,
            failed: self.failed.load(Ordering::Relaxed),
            job_ms: took_ms / done.max(1) as f64,
            ..Member::new(&self.hand.link, &self.hand.session)
        }
    }

    /// What it may take now: anything while it is idle; beside what it has, as many as its engine answers together, and nothing that would
    /// wait for what it has. What somebody says does not: beside a picture that nobody asked for, it is one more.
    fn may_take(&self) -> &'static [Kind] {
        let has = self.lock();
        let Some(most_urgent) = has.values().map(|held| held.kind).min() else {
            return if (self.is_idle)() { &Kind::ALL } else { &[] };
        };
        if has.values().any(|held| held.alone) {
            return &[];
        }
        let room = has.len() < self.answers;
        match most_urgent {
            Kind::Voice if room => &[Kind::Voice],
            Kind::Ask if room => &[Kind::Voice, Kind::Ask],
            Kind::Image if room => &Kind::ALL,
            Kind::Image if has.len() == self.answers => &[Kind::Voice],
            _ => &[],
        }
    }

    async fn work(self: Arc<Worker>) {
        let mut trouble = String::new();
        loop {
            // Only a connection that breaks for good, or a stream that goes, ends this.
            if let Err(error) = self.take_jobs(&mut trouble).await {
                let words = error.to_string();
                if words != trouble {
                    log::warn!(target: "fleet", "{words}; trying again until it works");
                    trouble = words;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn take_jobs(self: &Arc<Worker>, trouble: &mut String) -> Result<(), FleetError> {
        self.hand.link.make_streams().await?;
        let queues = self.queues().await?;
        trouble.clear();
        let listen = async |what: &str| {
            let subject = self.hand.link.names.subject(what);
            let heard = self.hand.link.client.subscribe(subject).await;
            heard.map_err(|error| self.hand.link.refused("listen for work", &error))
        };
        let (mut bell, mut cancelled) = (listen("bell").await?, listen("cancel").await?);
        let (end_sender, mut ends) = mpsc::unbounded_channel::<()>();
        // Until then others go first.
        let mut courtesy = Instant::now();
        loop {
            let may_take = match courtesy > Instant::now() && !self.lock().is_empty() {
                true => &[],
                false => self.may_take(),
            };
            if let Some((kind, message)) = self.next(&queues, may_take).await? {
                let (worker, ended) = (Arc::clone(self), end_sender.clone());
                let alone = message
                    .info()
                    .is_ok_and(|info| info.delivered >= ALONE_FROM);
                if alone && !self.lock().is_empty() {
                    message.ack_with(AckKind::Nak(Some(LOOK))).await.ok();
                    courtesy = Instant::now() + LOOK;
                } else if let Some(letter) = message.headers.as_ref().and_then(Letter::read) {
                    if let Some((request, is_cancelled)) = self.hold(&letter.id, kind, alone) {
                        let duty = Duty {
                            hand: Arc::clone(&self.hand),
                            kind,
                            request,
                            letter,
                            message,
                            is_cancelled,
                        };
                        tokio::spawn(async move {
                            worker.job(duty).await;
                            ended.send(()).ok();
                        });
                    }
                } else {
                    log::warn!(target: "fleet", "what is on {} is no job and is thrown away", message.subject);
                    message.ack_with(AckKind::Term).await.ok();
                }
                continue;
            }
            let pause = if may_take.is_empty() { LOOK_BUSY } else { LOOK };
            let polite = courtesy.saturating_duration_since(Instant::now());
            let pause = if polite.is_zero() { pause } else { polite };
            tokio::select! {
                Some(_) = bell.next() => courtesy = Instant::now() + COURTESY,
                Some(id) = cancelled.next() => self.cancel(&id.payload).await,
                Some(()) = ends.recv() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The queues that its model can do something about, the most urgent first; of a kind, what is for this board before all.
    async fn queues(&self) -> Result<Vec<(Kind, PullConsumer)>, FleetError> {
        let mut queues = Vec::new();
        let link = &self.hand.link;
        let refused = |error: &dyn std::fmt::Display| link.refused("take work", error);
        for kind in Kind::ALL {
            let stream = link.stream.get_stream(link.names.stream(kind)).await;
            let stream = stream.map_err(|error| refused(&error))?;
            let own = link.names.own_config(kind, &self.hand.session);
            let fits = QUEUES
                .into_iter()
                .filter(|(of, needs)| *of == kind && needs.are_met_by(self.can));
            let shared = fits.map(|queue| link.names.queue_config(queue));
            // Nobody asks for a picture of a camera, so none goes on with anything.
            let own = (kind != Kind::Image).then_some(own);
            for config in own.into_iter().chain(shared) {
                let consumer = stream.create_consumer(config).await;
                queues.push((kind, consumer.map_err(|error| refused(&error))?));
            }
        }
        Ok(queues)
    }

    /// The most urgent job that waits, of those that it may take.
    async fn next(
        &self,
        queues: &[(Kind, PullConsumer)],
        may_take: &[Kind],
    ) -> Result<Option<(Kind, Message)>, FleetError> {
        let refused = |error: &dyn std::fmt::Display| self.hand.link.refused("take work", error);
        for (kind, queue) in queues.iter().filter(|(kind, _)| may_take.contains(kind)) {
            let batch = queue.fetch().max_messages(1).messages().await;
            let mut batch = batch.map_err(|error| refused(&error))?;
            match tokio::time::timeout(ANSWERS_WITHIN, batch.next()).await {
                Ok(Some(Ok(message))) => return Ok(Some((*kind, message))),
                Ok(Some(Err(error))) => return Err(refused(&error)),
                Ok(None) => {}
                Err(_) => return Err(refused(&"it does not answer")),
            }
        }
        Ok(None)
    }

    async fn job(&self, duty: Duty) {
        let began = Instant::now();
        let result = duty.result().await;
        self.lock().remove(&duty.letter.id);
        let Some(result) = result else {
            return;
        };
        self.done.fetch_add(1, Ordering::Relaxed);
        self.failed
            .fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.took_ms.fetch_add(ms, Ordering::Relaxed);
        // Others are worked for while its source is looked for.
        tokio::spawn(async move { duty.bring(result).await });
    }

    /// Takes in that it has a job; nothing, where it has that already.
    fn hold(&self, id: &str, kind: Kind, alone: bool) -> Option<(String, Arc<AtomicBool>)> {
        let mut has = self.lock();
        if has.contains_key(id) {
            return None;
        }
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let request = Ulid::generate().to_string();
        let held = Held {
            kind,
            request: request.clone(),
            is_cancelled: Arc::clone(&is_cancelled),
            alone,
        };
        has.insert(id.to_owned(), held);
        Some((request, is_cancelled))
    }

    async fn cancel(&self, id: &[u8]) {
        let Ok(id) = std::str::from_utf8(id) else {
            return;
        };
        let held = self.lock().get(id).map(|held| {
            // The daemon may not have been asked yet.
            held.is_cancelled.store(true, Ordering::SeqCst);
            (held.kind, Name::new("job", held.request.clone()))
        });
        if let Some((kind, Ok(name))) = held {
            let payload = Payload::Cancel(Cancel::Job(name));
            let own = Ulid::generate().to_string();
            let request = Request::new(own, origin(kind), None, payload, ReplyTo::nobody());
            self.hand.requests.send(request).await.ok();
        }
    }
}
