//! Frigate's cameras: its events come over MQTT, their pictures from its HTTP API, and what is seen there goes back as the event's
//! description.
//!
//! A door like the others: it asks for pictures to be described, and hears what came of it among all reports.

mod events;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use ulid::Ulid;

use self::events::{Gate, Verdict};
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
/// Pauses between two tries to write a description back.
const WRITE_PAUSES_S: [u64; 8] = [1, 2, 5, 10, 30, 60, 120, 300];
/// Descriptions that wait to be written back.
const WAITING: usize = 64;

/// Follows Frigate's events until it is stopped.
struct Frigate {
    /// Ids of events, and what they show.
    seen: mpsc::Sender<(String, String)>,
    tasks: Vec<JoinHandle<()>>,
}

/// Opens the door; the API may be away.
pub fn open(
    options: &FrigateOptions,
    mqtt: &MqttOptions,
    limits: &ImageLimits,
    inside: Inside,
) -> Opening {
    let (options, mqtt, limits) = (options.clone(), mqtt.clone(), *limits);
    Box::pin(async move {
        let api = || Api::new(&options, limits.max_file_bytes);
        let pictures = Arc::new(Mutex::new(api()?));
        let follower = Follower::of(&mqtt, "frigate", &options.topic, "events")
            .map_err(|error| error.to_string())?;
        let (seen, waiting) = mpsc::channel(WAITING);
        let mut tasks = vec![tokio::spawn(follow(
            follower,
            options.clone(),
            Pictures {
                api: pictures,
                requests: inside.requests,
                limits,
            },
        ))];
        if options.write_back {
            tasks.push(tokio::spawn(write_back(api()?, waiting)));
        }
        Ok(Box::new(Frigate { seen, tasks }) as Box<dyn Door>)
    })
}

impl Door for Frigate {
    fn publish(&self, report: &Report) {
        let Report::Caption { event, .. } = report else {
            return;
        };
        let (Some(frigate), EventType::Caption) = (&event.frigate, event.event_type) else {
            return;
        };
        let told = (frigate.id.clone(), event.caption.clone());
        if let Err(mpsc::error::TrySendError::Full(_)) = self.seen.try_send(told) {
            log::warn!(
                "frigate: {WAITING} descriptions wait to be written back; that of {} is not",
                frigate.id
            );
        }
    }

    fn stop(self: Box<Self>, _: Duration) -> Stopped {
        Box::pin(async move {
            for task in self.tasks {
                task.abort();
                task.await.ok();
            }
        })
    }
}

/// Takes Frigate's messages, and fetches the pictures of those that are to be described: one at a time for each camera, and the newest
/// where several wait.
async fn follow(mut follower: Follower, options: FrigateOptions, pictures: Pictures) {
    let mut gate = Gate::new(&options);
    let mut fetching = JoinSet::new();
    let mut busy: HashSet<String> = HashSet::new();
    let mut waiting: HashMap<String, FrigateEvent> = HashMap::new();
    loop {
        tokio::select! {
            followed = follower.next() => match followed {
                Followed::Connected => log::info!("frigate: reading {}/events", options.topic),
                Followed::Lost(reason) => log::warn!("frigate: the broker {reason}"),
                // Nobody retains events; what is retained is old, or forged.
                Followed::Message { retained: true, .. } => {}
                Followed::Message { payload, .. } => match gate.judge(&payload, Instant::now()) {
                    Err(reason) => log::warn!("frigate: a message of {}/events is none: {reason}", options.topic),
                    Ok(Verdict::Other) => {}
                    Ok(Verdict::TooSoon) => log::debug!("frigate: an event within cooldown_s is left out"),
                    Ok(Verdict::Describe(event)) => {
                        if let Some(older) = waiting.insert(event.camera.clone(), event) {
                            log::info!("frigate: {} is left out, {} saw something newer", older.id, older.camera);
                        }
                    }
                },
            },
            Some(fetched) = fetching.join_next() => {
                if let Ok(camera) = fetched {
                    busy.remove(&camera);
                }
            }
        }
        let free: Vec<String> = waiting
            .keys()
            .filter(|camera| !busy.contains(*camera))
            .cloned()
            .collect();
        for event in free.iter().filter_map(|camera| waiting.remove(camera)) {
            busy.insert(event.camera.clone());
            let (pictures, prompt) = (pictures.clone(), gate.prompt(&event));
            fetching.spawn(async move {
                let camera = event.camera.clone();
                pictures.fetch(event, prompt).await;
                camera
            });
        }
    }
}

/// Where pictures come from, and where they go.
#[derive(Clone)]
struct Pictures {
    api: Arc<Mutex<Api>>,
    requests: mpsc::Sender<Request>,
    limits: ImageLimits,
}

impl Pictures {
    /// Fetches the picture of an event, and asks for it to be described.
    async fn fetch(&self, event: FrigateEvent, prompt: String) {
        let id = event.id.clone();
        let api = Arc::clone(&self.api);
        let image = patiently(&PICTURE_PAUSES_S, || {
            let (api, id) = (Arc::clone(&api), id.clone());
            move || {
                let mut api = api.lock().unwrap_or_else(PoisonError::into_inner);
                api.snapshot(&id)
            }
        });
        let image = match image.await {
            Ok(image) => image,
            Err(trouble) => {
                log::warn!(
                    "frigate: no picture of {id}: Frigate {}",
                    trouble.in_words()
                );
                return;
            }
        };
        let (width_px, height_px) = match RgbImage::size_of(&image, &self.limits) {
            Ok(size) => size,
            Err(error) => {
                log::warn!("frigate: the picture of {id}: {error}");
                return;
            }
        };
        let Ok(camera) = Name::new("camera", FrigateOptions::id_of(&event.camera)) else {
            return; // the configuration was looked at before
        };
        let seen = Seen {
            camera,
            frame: VideoFrame {
                encoded: image,
                width_px,
                height_px,
                taken_at: SystemTime::now(),
            },
            prompt,
            event,
        };
        let told = ReplyTo::new(move |update| {
            if let Some(error) = &update.error {
                log::info!("frigate: {id} is not described: {}", error.message);
            }
        });
        let payload = Payload::Seen(Box::new(seen));
        let request = Request::new(
            Ulid::generate().to_string(),
            Origin::Frigate,
            None,
            payload,
            told,
        );
        // The daemon has gone where nobody takes it.
        self.requests.send(request).await.ok();
    }
}

/// Writes descriptions back, one after the other, however long Frigate is away.
async fn write_back(api: Api, mut waiting: mpsc::Receiver<(String, String)>) {
    let api = Arc::new(Mutex::new(api));
    while let Some((id, description)) = waiting.recv().await {
        let written = patiently(&WRITE_PAUSES_S, || {
            let (api, id, description) = (Arc::clone(&api), id.clone(), description.clone());
            move || {
                let mut api = api.lock().unwrap_or_else(PoisonError::into_inner);
                api.describe(&id, &description)
            }
        });
        match written.await {
            Ok(()) => log::debug!("frigate: {id} has its description"),
            Err(trouble) => log::warn!(
                "frigate: the description of {id} could not be written back: Frigate {}",
                trouble.in_words()
            ),
        }
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
            (Trouble::Passing(words), Some(&pause)) => {
                log::debug!("frigate: Frigate {words}; tried again in {pause} s");
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            _ => return Err(trouble),
        }
    }
}
