//! Text to speech by a server of the protocol, such as piper's: a sentence becomes sound, piece by piece.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::framing::{self, Event};
use super::sound::Sound;
use crate::guard::harmless::short;
use crate::media::AudioClip;

/// Most sound of one event, bytes: more than any server sends at once.
const EVENT_BYTES: usize = 4 << 20;

/// Longest that a sentence takes to say, seconds; what comes beyond is left out.
const LONGEST_S: u32 = 600;

/// A server that makes speech of text.
#[derive(Clone, Debug)]
pub struct Voice {
    /// Host and port.
    pub address: String,
    /// The voice that is asked for; absent: its own choice.
    pub name: Option<String>,
    /// How long it may say nothing.
    pub patience: Duration,
}

/// A sentence that is being made sound.
pub struct Spoken {
    voice: Voice,
    stream: BufReader<TcpStream>,
    sound: Option<(u32, Sound)>,
}

impl Voice {
    /// Asks for a sentence.
    ///
    /// # Errors
    /// The server cannot be reached; one line.
    pub async fn say(&self, sentence: &str) -> Result<Spoken, String> {
        let mut ask = json!({ "text": sentence });
        if let Some(name) = &self.name {
            ask["voice"] = json!({ "name": name });
        }
        let address = &self.address;
        let asked = timeout(self.patience, async {
            let mut stream = TcpStream::connect(address)
                .await
                .map_err(|error| error.to_string())?;
            framing::write(&mut stream, &Event::new("synthesize", ask))
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(stream)
        });
        match asked.await {
            Ok(Ok(stream)) => Ok(Spoken {
                voice: self.clone(),
                stream: BufReader::new(stream),
                sound: None,
            }),
            Ok(Err(reason)) => Err(self.fault(&format!("cannot be reached: {reason}"))),
            Err(_) => Err(self.is_silent()),
        }
    }

    fn fault(&self, what: &str) -> String {
        format!("the text-to-speech server tcp://{} {what}", self.address)
    }

    fn is_silent(&self) -> String {
        let patience_s = self.patience.as_secs();
        self.fault(&format!(
            "has said nothing for {patience_s} s ([speaker] tts_patience_s)"
        ))
    }
}

impl Spoken {
    /// The next piece of its sound at the server's rate; nothing once all has come, and nothing after an error.
    pub async fn next(&mut self) -> Option<Result<AudioClip, String>> {
        loop {
            let event = timeout(
                self.voice.patience,
                framing::read(&mut self.stream, EVENT_BYTES),
            );
            let event = match event.await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return Some(Err(self.voice.fault("went away in mid-sentence"))),
                Ok(Err(fault)) => return Some(Err(self.voice.fault(&format!("failed: {fault}")))),
                Err(_) => return Some(Err(self.voice.is_silent())),
            };
            match self.hear(&event) {
                Ok(Heard::Nothing) => {}
                Ok(Heard::Piece(piece)) => return Some(Ok(piece)),
                Ok(Heard::End) => return None,
                Err(reason) => return Some(Err(self.voice.fault(&reason))),
            }
        }
    }

    fn hear(&mut self, event: &Event) -> Result<Heard, String> {
        match event.kind.as_str() {
            "audio-start" => {
                self.sound = Some(begun(event)?);
                Ok(Heard::Nothing)
            }
            "audio-chunk" => {
                let (rate_hz, sound) = match &mut self.sound {
                    Some(sound) => sound,
                    none => none.insert(begun(event)?),
                };
                Ok(Heard::Piece(AudioClip {
                    samples: sound.samples(&event.payload)?,
                    sample_rate_hz: *rate_hz,
                }))
            }
            "audio-stop" => Ok(Heard::End),
            "error" => {
                let text = event.data.get("text").and_then(Value::as_str);
                Err(format!("refuses: {}", short(text.unwrap_or("no reason"))))
            }
            _ => Ok(Heard::Nothing),
        }
    }
}

enum Heard {
    Nothing,
    Piece(AudioClip),
    End,
}

/// The sound that an event tells of, at its own rate.
fn begun(event: &Event) -> Result<(u32, Sound), String> {
    let rate = event.number("rate")?;
    let rate_hz = u32::try_from(rate).map_err(|_| format!("sends sound of {rate} Hz"))?;
    Ok((rate_hz, Sound::at(rate_hz, event, LONGEST_S)?))
}

/// A text in pieces that can be said one after the other: its sentences, short ones together with what follows.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let (sentence, behind) = rest.split_at(end_of_sentence(rest));
        rest = behind;
        Some(sentence.trim_end())
    })
}

/// Shorter is said together with what follows, characters: "Dr." is no sentence, nor is "1.".
const SHORTEST: usize = 12;

/// Where the first sentence ends, in bytes.
fn end_of_sentence(text: &str) -> usize {
    let mut before = text.char_indices().enumerate().peekable();
    while let Some((count, (at, mark))) = before.next() {
        let end = at + mark.len_utf8();
        let next = before.peek().map(|(_, (_, next))| *next);
        let ends = match mark {
            '。' | '！' | '？' | '\n' => true,
            '.' | '!' | '?' | '…' | ':' | ';' => next.is_none_or(char::is_whitespace),
            _ => false,
        };
        if ends && count + 1 >= SHORTEST {
            return end;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_behind_sentences_and_nothing_is_lost() {
        let cut = |text| sentences(text).collect::<Vec<_>>();
        assert_eq!(
            cut("It is 21.5 degrees. Ask Dr. Who! Will it rain tomorrow?  No"),
            [
                "It is 21.5 degrees.",
                "Ask Dr. Who!",
                "Will it rain tomorrow?",
                "No"
            ]
        );
        assert_eq!(cut("Yes. It is on."), ["Yes. It is on."]);
        assert_eq!(
            cut("电灯已经在厨房里打开了。门是关着的，窗户也是关着的。"),
            ["电灯已经在厨房里打开了。", "门是关着的，窗户也是关着的。"]
        );
        assert_eq!(cut(" \n "), Vec::<&str>::new());
        assert_eq!(
            cut("a list of things\nand more"),
            ["a list of things", "and more"]
        );
    }
}
