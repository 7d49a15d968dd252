//! Who is in the fleet: each board tells how it is every few seconds, and when it is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::connect::Link;
use super::error::FleetError;
use super::letter::is_name;
use super::names::{Needs, PROTOCOL};

/// Between two times that a board tells how it is.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Who has told nothing for so long is gone.
const GONE: Duration = Duration::from_secs(7);

/// Members that are remembered at most.
const MAX_MEMBERS: usize = 256;

/// Largest message of a board about itself, bytes.
const MAX_MEMBER_BYTES: usize = 4096;

/// How a board is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Member {
    /// Of the protocol: boards of another number leave each other's jobs alone.
    pub protocol: u32,
    /// gemmad's version.
    pub version: String,
    /// Its name.
    pub node: String,
    /// Of its process.
    pub session: String,
    /// `source`, `worker` or `both`.
    pub role: String,
    /// Its model, where it works for others.
    pub model: String,
    /// Whether that takes pictures.
    pub sees: bool,
    /// Whether that takes sound.
    pub hears: bool,
    /// It hears while somebody speaks.
    #[serde(default)]
    pub live: bool,
    /// Whether that can think before it answers.
    #[serde(default)]
    pub thinks: bool,
    /// It takes no job now.
    pub busy: bool,
    /// Jobs that it has done for others since its start.
    pub done: u64,
    /// Those of them that came to an error.
    pub failed: u64,
    /// What a job took it, mean of all, milliseconds.
    pub job_ms: f64,
    /// Its own jobs that are away now.
    pub away: usize,
    /// Its own jobs that came back since its start.
    pub came_back: u64,
    /// Its own jobs of which workers died.
    pub poison: u64,
}

impl Member {
    /// A board that has done nothing yet.
    pub(super) fn new(link: &Link, session: &str) -> Member {
        Member {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: link.node.clone(),
            session: session.to_owned(),
            role: link.options.role.name().to_owned(),
            ..Member::default()
        }
    }

    /// What a board tells of itself; nothing, where it is none.
    fn read(message: &[u8]) -> Option<Member> {
        let message = (message.len() <= MAX_MEMBER_BYTES).then_some(message)?;
        let member: Member = serde_json::from_slice(message).ok()?;
        let is_one = is_name(&member.node) && is_name(&member.session);
        is_one.then_some(member)
    }

    /// What its model can do.
    pub(super) fn can(&self) -> Needs {
        Needs {
            sees: self.sees,
            hears: self.hears,
            live: self.live,
            thinks: self.thinks,
        }
    }

    /// The same in words: ` that sees and hears`.
    pub fn abilities(&self) -> String {
        self.can().in_words()
    }

    /// Why no job goes from or to this board, where it is of another protocol than this program.
    pub fn misfit(&self) -> Option<String> {
        (self.protocol != PROTOCOL).then(|| {
            format!(
                "{} runs gemmad {}, which speaks protocol {} of the fleet, and this one {PROTOCOL}: update the older one",
                self.node, self.version, self.protocol
            )
        })
    }
}

/// Asks who is there, and listens for `patience`.
///
/// # Errors
/// Nobody can be asked.
pub async fn roster(link: &Link, patience: Duration) -> Result<Vec<Member>, FleetError> {
    let refused = |error: &dyn std::fmt::Display| link.refused("ask who is there", error);
    let inbox = link.client.new_inbox();
    let answers = link.client.subscribe(inbox.clone()).await;
    let mut answers = answers.map_err(|error| refused(&error))?;
    let who = link.names.subject("who");
    let asked = link.client.publish_with_reply(who, inbox, "".into()).await;
    asked.map_err(|error| refused(&error))?;
    let mut members = BTreeMap::new();
    let until = tokio::time::Instant::now() + patience;
    while let Ok(Some(message)) = tokio::time::timeout_at(until, answers.next()).await {
        if let Some(member) = Member::read(&message.payload)
            && members.len() < MAX_MEMBERS
        {
            members.insert((member.node.clone(), member.session.clone()), member);
        }
    }
    Ok(members.into_values().collect())
}

/// Tells how this board is, for as long as the process runs.
pub(super) fn tell(link: &Link, how: impl Fn() -> Member + Send + 'static) {
    let link = link.clone();
    tokio::spawn(async move {
        let mut asked = loop {
            match link.client.subscribe(link.names.subject("who")).await {
                Ok(asked) => break asked,
                Err(_) => tokio::time::sleep(EVERY).await,
            }
        };
        let mut tick = tokio::time::interval(EVERY);
        loop {
            let to = tokio::select! {
                _ = tick.tick() => link.names.subject("member"),
                Some(message) = asked.next() => match message.reply {
                    Some(reply) => reply.to_string(),
                    None => continue,
                },
            };
            if let Ok(member) = serde_json::to_vec(&how()) {
                // Whoever misses it hears the next one.
                link.client.publish(to, member.into()).await.ok();
            }
        }
    });
}

/// The other boards, as they told last.
#[derive(Debug, Default)]
pub(super) struct Crew(Mutex<BTreeMap<String, (Member, Instant)>>);

impl Crew {
    /// Listens, for as long as the process runs.
    pub(super) fn listen(link: &Link, session: &str) -> Arc<Crew> {
        let crew = Arc::new(Crew::default());
        let (link, own, into) = (link.clone(), session.to_owned(), Arc::clone(&crew));
        tokio::spawn(async move {
            let mut told = loop {
                match link.client.subscribe(link.names.subject("member")).await {
                    Ok(told) => break told,
                    Err(_) => tokio::time::sleep(EVERY).await,
                }
            };
            while let Some(message) = told.next().await {
                if let Some(member) = Member::read(&message.payload)
                    && member.session != own
                {
                    into.heard(member);
                }
            }
        });
        crew
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Member, Instant)>> {
        // Every change is complete before anything in it could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, member: Member) {
        let mut members = self.lock();
        members.retain(|_, (_, when)| when.elapsed() < GONE);
        let known = members.get(&member.session).map(|(member, _)| member);
        if let Some(misfit) = member.misfit().filter(|_| known.is_none()) {
            log::warn!(target: "fleet", "{misfit}");
        }
        if known.is_some() || members.len() < MAX_MEMBERS {
            members.insert(member.session.clone(), (member, Instant::now()));
        }
    }

    /// Whether a board's process has told of itself lately.
    pub(super) fn is_there(&self, session: &str) -> bool {
        let members = self.lock();
        let member = members.get(session);
        member.is_some_and(|(_, when)| when.elapsed() < GONE)
    }

    /// Those that are there.
    pub(super) fn members(&self) -> Vec<Member> {
        let members = self.lock();
        let there = members.values().filter(|(_, when)| when.elapsed() < GONE);
        there.map(|(member, _)| member.clone()).collect()
    }

    /// Those that are there and work for others.
    pub(super) fn workers(&self) -> Vec<Member> {
        let mut members = self.members();
        members.retain(|member| member.role != "source" && member.protocol == PROTOCOL);
        members
    }
}
