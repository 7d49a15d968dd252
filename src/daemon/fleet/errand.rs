//! A job as it goes to another board: complete, since that board knows neither this one's cameras nor its prompts.

use std::time::{Duration, Instant};

use ulid::Ulid;

use crate::daemon::job::{Job, NO_COMMAND, Speaker, Utterance, Work};
use crate::daemon::{scene, wording};
use crate::fleet::{self, Kind};
use crate::pipeline::Grammar;
use crate::report::chat::{Chat, Choosing};
use crate::report::{
    AskFields, Attachment, DescribeFields, ErrorBody, ErrorCode, TranscribeFields, Wish, Wording,
};

/// A job for another board; the sound of an utterance comes besides.
///
/// # Errors
/// What is asked cannot be written, as this board is configured.
pub(super) fn errand(job: &Job) -> Result<fleet::Job, ErrorBody> {
    let settings = &job.settings;
    let most = settings.max_tokens;
    let tokens = |asked: Option<usize>| Some(asked.map_or(most, |asked| asked.min(most)));
    let work = match &job.work {
        Work::Ask(ask) => fleet::Work::Ask(AskFields {
            max_tokens: tokens(ask.max_tokens),
            timeout_ms: None,
            seed: seed(ask.seed, ask.streams()),
            conversation: job.conversation(),
            // The board that was asked says it, as it comes.
            stream: ask.streams(),
            speak: false,
            ..AskFields::clone(ask)
        }),
        Work::Chat(chat) => {
            let most = settings.config.http.max_tokens;
            fleet::Work::Chat(Box::new(Chat {
                max_tokens: Some(chat.max_tokens.map_or(most, |asked| asked.min(most))),
                choosing: Choosing {
                    seed: seed(chat.choosing.seed, chat.stream),
                    ..chat.choosing
                },
                ..Chat::clone(chat)
            }))
        }
        Work::Caption(caption) => {
            let camera = settings.camera(&caption.camera);
            let usual = camera.map(|camera| settings.camera_prompt(camera));
            let soft_tokens = camera.and_then(|camera| camera.soft_tokens);
            let picture = Attachment(caption.frame.encoded.clone().into());
            let usual = usual.unwrap_or_default();
            let described = describe(picture, &caption.wish, usual, soft_tokens, tokens);
            let is_scene = caption.frigate.is_some() && settings.config.frigate.structured;
            match is_scene {
                true => fleet::Work::Ask(in_shape(described, &scene::grammar(&settings.config)?)),
                false => fleet::Work::Describe(described),
            }
        }
        Work::Describe { image, wish } => {
            let usual = settings.config.tasks.describe.clone();
            let described = describe(image.clone(), wish, usual, None, tokens);
            fleet::Work::Describe(described)
        }
        Work::Transcribe(transcribe) => fleet::Work::Transcribe {
            fields: TranscribeFields {
                audio: Some(transcribe.audio.clone()),
                language: transcribe.language.as_ref().map(|name| name.to_string()),
                matformer: transcribe.matformer.as_ref().map(|name| name.to_string()),
                max_tokens: tokens(transcribe.max_tokens),
                timeout_ms: None,
            },
            in_pieces: transcribe.in_pieces,
            into: transcribe.into.as_ref().map(|name| name.to_string()),
        },
        Work::Utterance(utterance) => speech(job, utterance)?,
        Work::Recognize { text, speaker } => {
            let commands = settings.commands.as_ref();
            let commands =
                commands.ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, NO_COMMAND))?;
            let here = commands.area_of(speaker);
            fleet::Work::Sentence(wording::of_sentence(commands, text, here))
        }
        // It is another board's, and stays.
        Work::Worded(wording) => fleet::Work::Sentence(*wording.clone()),
    };
    Ok(fleet::Job {
        id: job.id.clone(),
        kind: match (&job.work, &job.asker) {
            (Work::Utterance(_) | Work::Recognize { .. }, _) => Kind::Voice,
            (Work::Caption(_), None) => Kind::Image,
            _ => Kind::Ask,
        },
        camera: job.unasked_caption().map(str::to_owned),
        work,
        patience: patience(job),
    })
}

/// The second question about an utterance that was written down: which command that is.
pub(super) fn sentence(job: &Job, wording: Wording) -> fleet::Job {
    fleet::Job {
        id: Ulid::generate().to_string(),
        kind: Kind::Voice,
        camera: None,
        work: fleet::Work::Sentence(wording),
        patience: patience(job),
    }
}

/// Chance: where an answer is told while it comes, the same for every board that may have to begin it anew.
fn seed(asked: Option<u64>, stream: bool) -> Option<u64> {
    let any = || stream.then(|| Ulid::generate().random() as u64);
    asked.or_else(any)
}

/// What is asked about what is said.
fn speech(job: &Job, utterance: &Utterance) -> Result<fleet::Work, ErrorBody> {
    let wording = job.settings.wording(utterance);
    Ok(fleet::Work::Speech {
        wording: wording.map_err(|error| ErrorBody::new(ErrorCode::Failed, error.to_string()))?,
        stream: matches!(utterance.speaker, Speaker::Client { stream: true, .. }),
        sound: None,
    })
}

fn describe(
    image: Attachment,
    wish: &Wish,
    usual: String,
    soft_tokens: Option<usize>,
    tokens: impl Fn(Option<usize>) -> Option<usize>,
) -> DescribeFields {
    DescribeFields {
        camera: None,
        image: Some(image),
        soft_tokens: wish.soft_tokens.or(soft_tokens),
        prompt: Some(wish.prompt.clone().unwrap_or(usual)),
        matformer: wish.matformer.as_ref().map(|name| name.to_string()),
        max_tokens: tokens(wish.max_tokens),
        timeout_ms: None,
    }
}

/// The same picture, whose description is to have a shape.
fn in_shape(described: DescribeFields, shape: &Grammar) -> AskFields {
    AskFields {
        prompt: described.prompt.unwrap_or_default(),
        image: described.image,
        soft_tokens: described.soft_tokens,
        matformer: described.matformer,
        max_tokens: described
            .max_tokens
            .map(|most| most.max(scene::LEAST_TOKENS)),
        schema: shape.schema(),
        // The likeliest, as descriptions are.
        temperature: Some(0.0),
        ..AskFields::default()
    }
}

/// What is left of a job's time.
fn patience(job: &Job) -> Duration {
    let deadline = job.ticket.deadline();
    deadline.map_or_else(
        || job.patience(),
        |deadline| deadline.saturating_duration_since(Instant::now()),
    )
}
