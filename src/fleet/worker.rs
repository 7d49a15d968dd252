//! Whoever has a model and works for others: it takes one job when it is idle, the most urgent first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use ulid::Ulid;

use super::connect::Link;
use super::error::FleetError;
use super::job::Work;
use super::letter::{Letter, NO, ToSource, YES, digest};
use super::names::{ACK_WAIT, Kind, Needs, PROTOCOL, QUEUES};
use super::roster::{self, Member};
use super::source::Source;
use crate::report::{
    Cancel, ErrorBody, ErrorCode, JobUpdate, ModelCard, Name, Origin, Payload, Reply, ReplyTo,
    Request,
};

/// Between two looks for work that no bell told of.
const LOOK: Duration = Duration::from_secs(1);

/// The same while the board's own work is done, whose end nobody tells.
const LOOK_BUSY: Duration = Duration::from_millis(100);

/// So long idle boards go first at an utterance that a busy one could take.
const COURTESY: Duration = Duration::from_millis(150);

/// How long a source may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long it is tried to bring a result to a source that may have gone.
const SOURCE_GONE: Duration = Duration::from_secs(30);

/// Largest payload, bytes.
const MAX_BYTES: usize = 64 << 20;

/// Whether the board has nothing else to do.
type Idle = dyn Fn() -> bool + Send + Sync;

/// A board that works for others.
pub struct Worker {
    link: Link,
    session: String,
    model: String,
    sees: bool,
    hears: bool,
    requests: mpsc::Sender<Request>,
    is_idle: Box<Idle>,
    /// Jobs that it has now, and whether nobody asked for them.
    has: Mutex<BTreeMap<String, Kind>>,
    done: AtomicU64,
    failed: AtomicU64,
    /// Time that its jobs took, milliseconds.
    took_ms: AtomicU64,
}

impl Worker {
    /// Begins to work, and to tell the fleet of this board: what it sends is told by `source`, where it does.
    ///
    /// Jobs go to `requests`, as from any door; one is taken while `is_idle` says so.
    pub fn start(
        link: &Link,
        card: &ModelCard,
        requests: mpsc::Sender<Request>,
        is_idle: impl Fn() -> bool + Send + Sync + 'static,
        source: Option<&Arc<Source>>,
    ) -> Arc<Worker> {
        let worker = Arc::new(Worker {
            session: Ulid::generate().to_string(),
            model: card.name.clone(),
            sees: card.sees,
            hears: card.hears,
            requests,
            is_idle: Box::new(is_idle),
            link: link.clone(),
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kind>> {
        // Every change is complete before anything in it could panic.
        self.has.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self) -> Member {
        let done = self.done.load(Ordering::Relaxed);
        let took_ms = self.took_ms.load(Ordering::Relaxed) as f64;
        Member {
            model: self.model.clone(),
            sees: self.sees,
            hears: self.hears,
            busy: !self.lock().is_empty() || !(self.is_idle)(),
            done,
            failed: self.failed.load(Ordering::Relaxed),
            job_ms: took_ms / done.max(1) as f64,
            ..Member::new(&self.link, &self.session)
        }
    }

    /// What it may take now: anything while it is idle, and while it describes a picture that nobody asked for, what somebody says.
    fn may_take(&self) -> &'static [Kind] {
        let has = self.lock();
        match has.values().next() {
            None if (self.is_idle)() => &Kind::ALL,
            Some(Kind::Image) if has.len() == 1 => &[Kind::Voice],
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
        self.link.make_streams().await?;
        let queues = self.queues().await?;
        trouble.clear();
        let listen = async |what: &str| {
            let subject = self.link.names.subject(what);
            let heard = self.link.client.subscribe(subject).await;
            heard.map_err(|error| self.link.refused("listen for work", &error))
        };
        let (mut bell, mut cancelled) = (listen("bell").await?, listen("cancel").await?);
        let (end_sender, mut ends) = mpsc::unbounded_channel::<()>();
        loop {
            let may_take = self.may_take();
            if let Some((kind, message)) = self.next(&queues, may_take).await? {
                let (worker, ended) = (Arc::clone(self), end_sender.clone());
                if let Some(letter) = message.headers.as_ref().and_then(Letter::read) {
                    if self.lock().insert(letter.id.clone(), kind).is_none() {
                        tokio::spawn(async move {
                            worker.job(kind, letter, &message).await;
                            ended.send(()).ok();
                        });
                    }
                } else {
                    log::warn!(target: "fleet", "what is on {} is no job and is thrown away", message.subject);
                    message.ack_with(AckKind::Term).await.ok();
                }
                continue;
            }
            let pause = if (self.is_idle)() { LOOK } else { LOOK_BUSY };
            tokio::select! {
                Some(_) = bell.next() => {
                    if !self.lock().is_empty() {
                        tokio::time::sleep(COURTESY).await;
                    }
                }
                Some(id) = cancelled.next() => self.cancel(&id.payload).await,
                Some(()) = ends.recv() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The queues that its model can do something about.
    async fn queues(&self) -> Result<Vec<(Kind, PullConsumer)>, FleetError> {
        let mut queues = Vec::new();
        let refused = |error: &dyn std::fmt::Display| self.link.refused("take work", error);
        let fits = |needs: Needs| needs.are_met(self.sees, self.hears);
        for queue in QUEUES.into_iter().filter(|(_, needs)| fits(*needs)) {
            let names = &self.link.names;
            let stream = self.link.stream.get_stream(names.stream(queue.0)).await;
            let stream = stream.map_err(|error| refused(&error))?;
            let config = names.queue_config(queue);
            let consumer = stream.create_consumer(config).await;
            queues.push((queue.0, consumer.map_err(|error| refused(&error))?));
        }
        Ok(queues)
    }

    /// The most urgent job that waits, of those that it may take.
    async fn next(
        &self,
        queues: &[(Kind, PullConsumer)],
        may_take: &[Kind],
    ) -> Result<Option<(Kind, Message)>, FleetError> {
        let refused = |error: &dyn std::fmt::Display| self.link.refused("take work", error);
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

    async fn job(self: &Arc<Worker>, kind: Kind, letter: Letter, message: &Message) {
        let began = Instant::now();
        let result = self
            .keeping(message, self.result(kind, &letter, message))
            .await;
        self.lock().remove(&letter.id);
        let Some(result) = result else {
            return;
        };
        self.done.fetch_add(1, Ordering::Relaxed);
        self.failed
            .fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.took_ms.fetch_add(ms, Ordering::Relaxed);
        // Others are worked for while its source is looked for.
        let (worker, message) = (Arc::clone(self), message.clone());
        tokio::spawn(async move {
            let (reply, error) = match result {
                Ok(reply) => (Some(Box::new(reply)), None),
                Err(error) => (None, Some(error)),
            };
            let told = ToSource::Done {
                id: letter.id.clone(),
                worker: worker.link.node.clone(),
                model: worker.model.clone(),
                reply,
                error,
            };
            let asked = worker.ask(&letter, &told, SOURCE_GONE);
            worker.keeping(&message, asked).await;
            message.ack_with(AckKind::Ack).await.ok();
        });
    }

    /// Does something, and tells the server meanwhile that the job is in good hands.
    async fn keeping<T>(&self, message: &Message, work: impl Future<Output = T>) -> T {
        let mut alive = tokio::time::interval(ACK_WAIT / 4);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = alive.tick() => drop(message.ack_with(AckKind::Progress).await),
            }
        }
    }

    /// What a job becomes; nothing, where it is not this board's any more.
    async fn result(
        &self,
        kind: Kind,
        letter: &Letter,
        message: &Message,
    ) -> Option<Result<Reply, ErrorBody>> {
        let error = |code, words: String| Some(Err(ErrorBody::new(code, words)));
        let claim = ToSource::Has {
            id: letter.id.clone(),
            worker: self.link.node.clone(),
            delivery: message.info().map_or(1, |info| info.delivered),
        };
        if !self.ask(letter, &claim, ACK_WAIT).await {
            message.ack_with(AckKind::Term).await.ok();
            return None;
        }
        if letter.protocol != PROTOCOL {
            let words = format!(
                "{} speaks protocol {PROTOCOL} of the fleet, and the job's board {}: update the older one",
                self.link.node, letter.protocol
            );
            return error(ErrorCode::Failed, words);
        }
        let payload = match self.payload(letter, message).await {
            Ok(payload) => payload,
            Err(refusal) => return Some(Err(refusal)),
        };
        let (sender, mut updates) = mpsc::unbounded_channel::<JobUpdate>();
        let reply = ReplyTo::new(move |update| {
            sender.send(update.clone()).ok();
        });
        let mut request = Request::new(letter.id.clone(), origin(kind), None, payload, reply);
        request.header.timeout = Some(letter.patience);
        let began = self.requests.send(request).await;
        let end = async {
            began.ok()?;
            loop {
                let update = updates.recv().await?;
                if update.state.has_ended() {
                    return update.reply.map(Ok).or(update.error.map(Err));
                }
            }
        };
        match end.await {
            // It is ending, or has taken in more than it can do: another board may do it.
            None
            | Some(Err(ErrorBody {
                code: ErrorCode::Busy | ErrorCode::QueueFull,
                ..
            })) => {
                let soon = AckKind::Nak(Some(Duration::from_millis(500)));
                message.ack_with(soon).await.ok();
                None
            }
            result => result,
        }
    }

    /// Asks or tells a job's source; whether the job is one of those that it waits for. One that cannot be reached within `patience` waits
    /// for nothing: where it is there after all, it sends again what is not at the server.
    async fn ask(&self, letter: &Letter, told: &ToSource, patience: Duration) -> bool {
        let Ok(told) = serde_json::to_vec(told) else {
            return false;
        };
        let subject = self.link.names.source(&letter.node, &letter.session);
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let asked = self
                .link
                .client
                .request(subject.clone(), told.clone().into());
            match tokio::time::timeout(ANSWERS_WITHIN, asked).await {
                Ok(Ok(answer)) if *answer.payload == *YES => return true,
                Ok(Ok(answer)) if *answer.payload == *NO => return false,
                _ => tokio::time::sleep(ANSWERS_WITHIN / 4).await,
            }
        }
        false
    }

    /// What is asked, with its payload.
    async fn payload(&self, letter: &Letter, message: &Message) -> Result<Payload, ErrorBody> {
        let invalid = |words: String| ErrorBody::new(ErrorCode::Invalid, words);
        let mut body = Vec::new();
        if letter.stored {
            let failed = |error: &dyn std::fmt::Display| {
                ErrorBody::new(
                    ErrorCode::Failed,
                    format!("cannot read its payload: {error}"),
                )
            };
            let store = self.link.store().await.map_err(|error| failed(&error))?;
            let object = store
                .get(&letter.id)
                .await
                .map_err(|error| failed(&error))?;
            if object.info().size > MAX_BYTES {
                return Err(invalid(format!(
                    "its payload has {} bytes",
                    object.info().size
                )));
            }
            let mut object = tokio::io::AsyncReadExt::take(object, MAX_BYTES as u64);
            let read = tokio::io::AsyncReadExt::read_to_end(&mut object, &mut body).await;
            read.map_err(|error| failed(&error))?;
        } else {
            body.extend_from_slice(&message.payload);
        }
        if digest(&body) != letter.digest {
            return Err(invalid(
                "its payload is not what was sent: the SHA-256 is another".to_owned(),
            ));
        }
        let work: Work = serde_json::from_slice(&body)
            .map_err(|error| invalid(format!("{} cannot read it: {error}", self.link.node)))?;
        work.payload()
    }

    async fn cancel(&self, id: &[u8]) {
        let Ok(id) = std::str::from_utf8(id) else {
            return;
        };
        let kind = self.lock().get(id).copied();
        if let (Some(kind), Ok(name)) = (kind, Name::new("job", id.to_owned())) {
            let payload = Payload::Cancel(Cancel::Job(name));
            let own = Ulid::generate().to_string();
            let request = Request::new(own, origin(kind), None, payload, ReplyTo::nobody());
            self.requests.send(request).await.ok();
        }
    }
}

fn origin(kind: Kind) -> Origin {
    Origin::Fleet {
        unasked: kind == Kind::Image,
    }
}
