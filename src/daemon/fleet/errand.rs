//! A job as it goes to another board: complete, since that board knows neither this one's cameras nor its prompts.

use std::time::{Duration, Instant};

use crate::capture::options::VoiceAnswer;
use crate::daemon::job::{Job, Speaker, Utterance, Work};
use crate::daemon::scene;
use crate::fleet::{self, Kind};
use crate::pipeline::Grammar;
use crate::report::{
    AskFields, Attachment, DescribeFields, ErrorBody, ErrorCode, TranscribeFields, Wish,
};
use crate::utterance::Progress;

/// A job for another board.
///
/// # Errors
/// Why no other board can do it.
pub(super) fn errand(job: &Job) -> Result<fleet::Job, ErrorBody> {
    let settings = &job.settings;
    let most = settings.max_tokens;
    let tokens = |asked: Option<usize>| Some(asked.map_or(most, |asked| asked.min(most)));
    let work = match &job.work {
        Work::Ask(ask) => fleet::Work::Ask(AskFields {
            max_tokens: tokens(ask.max_tokens),
            timeout_ms: None,
            stream: false,
            ..AskFields::clone(ask)
        }),
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
        Work::Chat(_) | Work::Recognize { .. } => return Err(needs_model("such work")),
    };
    Ok(fleet::Job {
        id: job.id.clone(),
        kind: match (&job.work, &job.asker) {
            (Work::Utterance(_), _) => Kind::Voice,
            (Work::Caption(_), None) => Kind::Image,
            _ => Kind::Ask,
        },
        camera: job.unasked_caption().map(str::to_owned),
        work,
        patience: patience(job),
    })
}

fn needs_model(what: &str) -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Failed,
        format!(
            "this board has no model, and the fleet does not take {what}: give it one, with fleet.role = \"both\""
        ),
    )
}

/// What was said, whole. Its time begins with its end.
fn speech(job: &Job, utterance: &Utterance) -> Result<fleet::Work, ErrorBody> {
    let settings = &job.settings;
    let language = match &utterance.speaker {
        Speaker::Client { language, .. } => language.clone(),
        Speaker::Microphone(id) => {
            let microphone = settings.microphone(id);
            if microphone.is_some_and(|options| options.answer != VoiceAnswer::Transcript) {
                return Err(needs_model("commands that are spoken"));
            }
            microphone.map_or_else(String::new, |options| options.language.clone())
        }
    };
    if let (_, Progress::Ended { at, .. }) = utterance.sound.state() {
        job.ticket.set_deadline(at + job.patience());
    }
    let samples = utterance.sound.take(usize::MAX);
    Ok(fleet::Work::speech(&samples, language, settings.max_tokens))
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
        max_tokens: described.max_tokens,
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
