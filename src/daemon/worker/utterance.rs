//! An utterance: encoded and prefilled piece by piece while it is spoken, then answered as text, as a command, or as both.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::Task;
use super::wake_phrase::meant;
use crate::capture::options::VoiceAnswer;
use crate::daemon::hearing::{Hearing, Outcome, Understood, both};
use crate::daemon::job::{PIECE_SAMPLES, Speaker, Utterance};
use crate::daemon::reports;
use crate::features::speech_check::SpeechCheck;
use crate::media::SAMPLE_RATE_HZ;
use crate::pipeline::commands::CommandGrammar;
use crate::pipeline::{Answer, EngineError, Message, Part, Request, Speech};
use crate::report::{EventType, Manner, ReportTiming};
use crate::utterance::Progress;

/// What was heard of an utterance that is over.
#[derive(Clone, Copy)]
pub(super) struct Spoken {
    pub(super) samples: usize,
    pub(super) truncated: bool,
    pub(super) ended_at: Instant,
}

impl Spoken {
    fn seconds(self) -> f64 {
        self.samples as f64 / f64::from(SAMPLE_RATE_HZ)
    }
}

impl Task<'_> {
    /// The next piece of an utterance; what has been made of it so far, where there is more to come.
    pub(super) fn utterance(
        &mut self,
        utterance: &Utterance,
        hearing: Option<Box<Hearing>>,
    ) -> Option<Box<Hearing>> {
        let (waiting, progress) = utterance.sound.state();
        let samples = hearing.as_ref().map_or(0, |hearing| hearing.samples);
        let mut spoken = Spoken {
            samples,
            truncated: false,
            ended_at: Instant::now(),
        };
        match progress {
            Progress::Speaking | Progress::Paused => {}
            Progress::Ended { truncated, at } => {
                self.job.ticket.set_deadline(at + self.job.patience());
                (spoken.truncated, spoken.ended_at) = (truncated, at);
            }
            Progress::Cancelled => {
                // A client went, and waits for nothing; at a microphone it was no speech.
                self.job.ticket.cancel("whoever spoke is gone");
                self.end(Err(self.broken_off()));
                return None;
            }
        }
        let is_over = !progress.is_open();
        let more = match hearing {
            None => self.begin(utterance),
            Some(hearing) if !is_over && waiting < PIECE_SAMPLES => {
                return self.answer_early(utterance, hearing);
            }
            Some(mut hearing) => {
                match hearing.early.take() {
                    Some(early) if is_over && early.rest == waiting => {
                        spoken.samples += waiting;
                        self.engine.learn(early.lessons);
                        self.tell_outcome(utterance, early.outcome, spoken);
                        return None;
                    }
                    Some(_) => self.threw_away(),
                    None => {}
                }
                if is_over && waiting == 0 {
                    self.finish(utterance, *hearing, spoken);
                    return None;
                }
                let samples = utterance.sound.take(PIECE_SAMPLES);
                hearing.samples += samples.len();
                if let Some(check) = &mut hearing.check {
                    check.push(&samples);
                }
                spoken.samples = hearing.samples;
                let heard = self.engine.hear(&mut hearing.speech, &samples);
                heard.map(|()| hearing)
            }
        };
        match more {
            Ok(hearing) => Some(hearing),
            Err(error) => {
                self.give_up(utterance, spoken, error);
                None
            }
        }
    }

    /// What stands before the sound, to the model.
    fn begin(&mut self, utterance: &Utterance) -> Result<Box<Hearing>, EngineError> {
        let settings = Arc::clone(&self.job.settings);
        let (instructions, prompt) = settings.around(utterance)?;
        let check = match &utterance.speaker {
            Speaker::Client { manner, .. } => {
                let is_sure = matches!(manner, Manner::Worded(asked) if !asked.unsure);
                (!is_sure).then(|| SpeechCheck::new(&settings.config.speech))
            }
            Speaker::Microphone(_) => None,
        };
        let (desk, rank) = (&mut *self.desk, self.job.rank());
        let speech = self.engine.start_speech_giving_way(
            instructions.as_deref(),
            &prompt,
            settings.matformer.as_deref(),
            &mut |engine| desk.give_way(engine, rank),
        )?;
        Ok(Box::new(Hearing {
            speech,
            check,
            samples: 0,
            early: None,
        }))
    }

    /// Answers to an utterance that is over.
    fn finish(&mut self, utterance: &Utterance, mut hearing: Hearing, spoken: Spoken) {
        let check = hearing.check.as_mut();
        if !check.is_none_or(SpeechCheck::has_speech) {
            self.note_client(spoken);
            self.nothing_said(spoken.ended_at);
            return;
        }
        let outcome = self.outcome(utterance, hearing.speech, spoken.ended_at);
        self.tell_outcome(utterance, outcome, spoken);
    }

    /// What comes of an utterance, with all that was heard.
    pub(super) fn outcome(
        &mut self,
        utterance: &Utterance,
        speech: Speech,
        ended_at: Instant,
    ) -> Result<Outcome, EngineError> {
        let settings = Arc::clone(&self.job.settings);
        let straight = settings.straight(utterance);
        let generation = match (&utterance.speaker, straight) {
            (
                Speaker::Client {
                    manner: Manner::Worded(asked),
                    ..
                },
                _,
            ) => self.generation_of(asked)?,
            (_, Some(commands)) => commands.generation(),
            (_, None) => self.engine.most_likely(settings.max_tokens),
        };
        let (events, job) = (self.desk.events.clone(), self.job);
        // Only microphones are answered early: what a client is told in pieces stays.
        let streams = matches!(utterance.speaker, Speaker::Client { stream: true, .. });
        let mut on_text = |text: &str| {
            if streams {
                super::tell_piece(&events, job.asker.as_ref(), text);
            }
            ControlFlow::Continue(())
        };
        let desk = &mut *self.desk;
        let answer = self.engine.finish_speech_giving_way(
            speech,
            &generation,
            &mut on_text,
            &mut |engine| desk.give_way(engine, job.rank()),
        );
        let answer = super::whole(answer)?.ok_or(EngineError::Cancelled)?;
        Ok(match &utterance.speaker {
            Speaker::Client { .. } => Outcome::Answered(Box::new(answer)),
            Speaker::Microphone(id) => {
                let understood =
                    self.understand(id, utterance, straight.map(|c| &**c), answer, ended_at)?;
                Outcome::Understood(Box::new(understood))
            }
        })
    }

    /// Tells what came of an utterance.
    pub(super) fn tell_outcome(
        &mut self,
        utterance: &Utterance,
        outcome: Result<Outcome, EngineError>,
        spoken: Spoken,
    ) {
        match outcome {
            Ok(Outcome::Understood(mut understood)) => {
                understood.timing.latency_ms = spoken.ended_at.elapsed().as_secs_f64() * 1e3;
                if let Speaker::Microphone(id) = &utterance.speaker {
                    self.tell_heard(id, utterance, spoken, *understood);
                }
            }
            Ok(Outcome::Answered(answer)) => {
                self.note_client(spoken);
                self.end(self.reply(Ok(Some(*answer)), spoken.ended_at));
            }
            Err(error) => self.give_up(utterance, spoken, error),
        }
    }

    /// What an answer to an utterance at a microphone means there.
    fn understand(
        &mut self,
        microphone: &str,
        utterance: &Utterance,
        straight: Option<&CommandGrammar>,
        answer: Answer,
        ended_at: Instant,
    ) -> Result<Understood, EngineError> {
        let settings = Arc::clone(&self.job.settings);
        let timing = self.timing(&answer.timing, ended_at);
        if let Some(commands) = straight {
            let here = settings.area_of_microphone(commands, microphone);
            let read = commands.read(&answer, here);
            let slice = answer.matformer;
            return Ok(Understood::taken_for(read, None, slice, timing));
        }
        let slice = answer.matformer;
        let Some(config) = settings.microphone(microphone) else {
            return Ok(Understood::of(EventType::Rejected, slice, timing));
        };
        let heard = answer.text.trim().to_owned();
        let said = match meant(
            config,
            utterance.wake_word.as_deref(),
            utterance.goes_on,
            &heard,
        ) {
            Ok(said) => said.to_owned(),
            // What was not meant for the daemon is not published.
            Err(reason) => return Ok(Understood::rejected(reason.to_owned(), slice, timing)),
        };
        let commands = settings.commands.as_ref();
        let Some(commands) = commands.filter(|_| config.answer == VoiceAnswer::Both) else {
            let mut transcript = Understood::of(EventType::Transcript, slice, timing);
            transcript.text = Some(said);
            return Ok(transcript);
        };
        let here = settings.area_of_microphone(commands, microphone);
        let request = Request {
            messages: Message::with_instructions(
                commands.instructions().map(str::to_owned),
                vec![Part::Text(commands.prompt_for(&said, here))],
            ),
            matformer: settings.matformer.clone(),
            thinking: None,
            conversation: None,
            generation: commands.generation(),
        };
        let second = self.answer(&request)?.ok_or(EngineError::Cancelled)?;
        let timing = both(&timing, self.timing(&second.timing, ended_at));
        let read = commands.read(&second, here);
        Ok(Understood::taken_for(
            read,
            Some(said),
            second.matformer,
            timing,
        ))
    }

    /// Tells whoever waits that an utterance has no answer, and why.
    pub(super) fn give_up(&mut self, utterance: &Utterance, spoken: Spoken, error: EngineError) {
        match &utterance.speaker {
            Speaker::Client { .. } => {
                self.note_client(spoken);
                self.end(Err(match error {
                    EngineError::Cancelled => self.broken_off(),
                    error => super::engine_error(&error),
                }));
            }
            Speaker::Microphone(id) => {
                let reason = match error {
                    EngineError::Cancelled => match self.job.ticket.cancelled() {
                        Some(why) if !self.job.ticket.is_late() => why.to_owned(),
                        _ => self.job.too_late().message,
                    },
                    error => error.to_string(),
                };
                log::warn!(source = id.as_str(); "cannot answer to speech: {reason}");
                let slice = self.settings().matformer.clone().unwrap_or_default();
                let understood = Understood::rejected(reason, slice, ReportTiming::default());
                self.tell_heard(id, utterance, spoken, understood);
            }
        }
    }

    fn note_client(&self, spoken: Spoken) {
        log::info!(
            job_id = self.job.id.as_str();
            "heard {:.1} s of a client's speech", spoken.seconds()
        );
    }

    fn tell_heard(
        &mut self,
        microphone: &str,
        utterance: &Utterance,
        spoken: Spoken,
        understood: Understood,
    ) {
        let (job, model) = (self.job, &self.desk.model);
        let length = (spoken.seconds(), spoken.truncated);
        let told = reports::heard(job, microphone, utterance, length, understood, model);
        self.tell(told);
    }
}
