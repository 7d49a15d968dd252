//! Frigate's cameras: its events come over MQTT, their pictures from its HTTP API, and what is seen there goes back as the event's
//! description.
//!
//! A door like the others: it asks for pictures to be described, and hears what came of it among all reports.

mod events;
mod gate;
mod memory;
mod writing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use ulid::Ulid;

use self::gate::Verdict;
pub use self::memory::Memory;
use super::mqtt::{Followed, Follower, MqttOptions};
use super::{Door, Inside, Opening, Stopped};
use crate::features::image::{ImageLimits, RgbImage};
use crate::frigate::{Api, FrigateOptions, Trouble};
use crate::media::VideoFrame;
use crate::report::{
    EventType, FrigateEvent, Name, Origin, Payload, ReplyTo, Report, Request, Seen,
};

/// Pauses between two tries to get a picture: a restart of Frigate takes half a minute.
const PICTURE_PAUSES_S: [u64; 6] = [1, 2, 4, 8, 15, 30];

/// Follows Frigate's events until it is stopped.
struct Frigate {
    memory: Memory,
    following: JoinHandle<()>,
    /// Where descriptions are written back.
    writing: Option<JoinHandle<()>>,
}

/// Opens the door, each time with the same `memory`; the API may be away.
pub fn open(
    options: &FrigateOptions,
    mqtt: &MqttOptions,
    limits: &ImageLimits,
    memory: &Memory,
    inside: Inside,
) -> Opening {
    let (options, mqtt, limits) = (options.clone(), mqtt.clone(), *limits);
    let memory = memory.clone();
    Box::pin(async move {
        let api = || Api::new(&options, limits.max_file_bytes);
        let (pictures, descriptions) = (Arc::new(Mutex::new(api()?)), api()?);
        let follower = Follower::of(&mqtt, "frigate", &options.topic, "events")
            .map_err(|error| error.to_string())?;
        memory.gate().reopen(&options);
        let pictures = Pictures {
            api: pictures,
            memory: memory.clone(),
            requests: inside.requests,
            limits,
        };
        let following = tokio::spawn(follow(follower, options.clone(), pictures));
        let writing = match options.write_back {
            true => {
                let memory = memory.clone();
                Some(tokio::spawn(async move {
                    memory.unwritten().write(descriptions).await;
                }))
            }
            false => {
                memory.unwritten().clear();
                None
            }
        };
        Ok(Box::new(Frigate {
            memory,
            following,
            writing,
        }) as Box<dyn Door>)
    })
}

impl Door for Frigate {
    fn publish(&self, report: &Report) {
        let Report::Caption { event, .. } = report else {
            return;
        };
        let Some(frigate) = &event.frigate else {
            return;
        };
        if event.event_type != EventType::Caption {
            return self.memory.failed(frigate);
        }
        self.memory.gate().described(frigate);
        // An answer that was cut off before its caption begins has none.
        if self.writing.is_some() && !event.caption.is_empty() {
            self.memory.unwritten().add(&frigate.id, &event.caption);
        }
    }

    fn stop(self: Box<Self>, limit: Duration) -> Stopped {
        Box::pin(async move {
            self.following.abort();
            self.following.await.ok();
            if let Some(writing) = self.writing {
                self.memory.unwritten().all_tried(limit).await;
                writing.abort();
                writing.await.ok();
            }
        })
    }
}

/// Takes Frigate's messages, and fetches the pictures of those that are to be described: one at a time for each camera, and the newest
/// where several wait.
async fn follow(mut follower: Follower, options: FrigateOptions, pictures: Pictures) {
    let memory = pictures.memory.clone();
    let mut strangers = Strangers::default();
    let mut fetching = JoinSet::new();
    let mut busy: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        busy.retain(|_, fetch| !fetch.is_finished());
        let begun = memory.gate().begin(|camera| busy.contains_key(camera));
        for event in begun {
            let (pictures, prompt) = (pictures.clone(), events::prompt(&options, &event));
            let camera = event.camera.clone();
            let fetch = fetching.spawn(async move { pictures.fetch(event, prompt).await });
            busy.insert(camera, fetch);
        }
        tokio::select! {
            followed = follower.next() => match followed {
                Followed::Connected => log::info!("frigate: reading {}/events", options.topic),
                Followed::Lost(reason) => log::warn!("frigate: the broker {reason}"),
                // Nobody retains events; what is retained is old, or forged.
                Followed::Message { retained: true, .. } => {}
                Followed::Message { payload, .. } => {
                    match memory.gate().judge(&payload, Instant::now()) {
                        Err(reason) => strangers.tell(&options.topic, &reason),
                        Ok(Verdict::Describe { instead_of: Some(older) }) => {
                            log::info!("frigate: {} is left out, {} saw something newer", older.id, older.camera);
                        }
                        Ok(Verdict::TooSoon) => log::debug!("frigate: an event within cooldown_s is left out"),
                        Ok(Verdict::Describe { instead_of: None } | Verdict::Other) => {}
                    }
                }
            },
            Some(_) = fetching.join_next() => {}
            () = memory.next() => {}
        }
    }
}

/// Messages that are none of Frigate's: whoever may write there does not fill the journal.
#[derive(Default)]
struct Strangers {
    count: u64,
}

impl Strangers {
    /// Tells the first, the tenth, the hundredth and so on.
    fn tell(&mut self, topic: &str, reason: &str) {
        self.count += 1;
        if 10_u64.pow(self.count.ilog10()) == self.count {
            let count = self.count;
            log::warn!("frigate: a message of {topic}/events is none: {reason} (so far: {count})");
        }
    }
}

/// Where pictures come from, and where they go.
#[derive(Clone)]
struct Pictures {
    api: Arc<Mutex<Api>>,
    memory: Memory,
    requests: mpsc::Sender<Request>,
    limits: ImageLimits,
}

impl Pictures {
    /// Fetches the picture of an event, and asks for it to be described.
    async fn fetch(&self, event: FrigateEvent, prompt: String) {
        let fetched = patiently(&PICTURE_PAUSES_S, || {
            let (api, id, limits) = (Arc::clone(&self.api), event.id.clone(), self.limits);
            move || {
                let mut api = api.lock().unwrap_or_else(PoisonError::into_inner);
                let encoded = api.snapshot(&id)?;
                // All of it is decoded for that, so not where everything else waits.
                match RgbImage::size_of(&encoded, &limits) {
                    Ok((width_px, height_px)) => Ok(VideoFrame {
                        encoded,
                        width_px,
                        height_px,
                        taken_at: SystemTime::now(),
                    }),
                    Err(error) => Err(Trouble::Lasting(format!(
                        "gives one that cannot be used: {error}"
                    ))),
                }
            }
        });
        let frame = match fetched.await {
            Ok(frame) => frame,
            Err(trouble) => {
                let (id, words) = (&event.id, trouble.in_words());
                log::warn!("frigate: no picture of {id}: Frigate {words}");
                self.memory.gate().is_fetched(&event);
                return self.memory.failed(&event);
            }
        };
        let Ok(camera) = Name::new("camera", FrigateOptions::id_of(&event.camera)) else {
            return; // the configuration was looked at before
        };
        let (memory, refused) = (self.memory.clone(), event.clone());
        let told = ReplyTo::new(move |update| {
            if let Some(error) = &update.error {
                let id = &refused.id;
                log::info!("frigate: {id} is not described: {}", error.message);
                memory.failed(&refused);
            }
        });
        let Ok(room) = self.requests.reserve().await else {
            return; // the daemon has gone
        };
        self.memory.gate().is_fetched(&event);
        let seen = Seen {
            camera,
            frame,
            prompt,
            event,
        };
        let payload = Payload::Seen(Box::new(seen));
        let id = Ulid::generate().to_string();
        room.send(Request::new(id, Origin::Frigate, None, payload, told));
    }
}

/// Tries something on a thread that may wait, again and again while it may still work.
async fn patiently<T, F>(pauses_s: &[u64], attempt: impl Fn() -> F) -> Result<T, Trouble>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Trouble> + Send + 'static,
{
    let mut pauses = pauses_s.iter();
    loop {
        let tried = tokio::task::spawn_blocking(attempt()).await;
        let trouble = match tried {
            Ok(Err(trouble)) => trouble,
            Ok(done) => return done,
            Err(_) => return Err(Trouble::Lasting("could not be asked".to_owned())),
        };
        match (&trouble, pauses.next()) {
            (Trouble::Passing(words) | Trouble::Absent(words), Some(&pause)) => {
                log::debug!("frigate: Frigate {words}; tried again in {pause} s");
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            _ => return Err(trouble),
        }
    }
}
