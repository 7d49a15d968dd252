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
        Ok(Spoken {
            stream: self.ask(&Event::new("synthesize", ask)).await?,
            voice: self.clone(),
            sound: None,
        })
    }

    /// The names of the voices that the server has; none where it lists more than is read.
    ///
    /// # Errors
    /// It cannot be reached, or makes no speech of texts; one line.
    pub async fn choice(&self) -> Result<Vec<String>, String> {
        let mut stream = self.ask(&Event::new("describe", json!({}))).await?;
        let info = timeout(self.patience, async {
            while let Some(event) = framing::read(&mut stream, EVENT_BYTES).await? {
                if event.kind == "info" {
                    return Ok(Some(event));
                }
            }
            Ok::<_, framing::Fault>(None)
        });
        let info = match info.await {
            Ok(Ok(info)) => info.unwrap_or_default(),
            // Piper's list has each speaker of each voice.
            Ok(Err(framing::Fault::TooLong { .. })) => return Ok(Vec::new()),
            Ok(Err(fault)) => return Err(self.fault(&format!("failed: {fault}"))),
            Err(_) => return Err(self.is_silent()),
        };
        let list = |of: &Value, key: &str| of[key].as_array().cloned().unwrap_or_default();
        let programs = list(&Value::Object(info.data), "tts");
        if programs.is_empty() {
            return Err(self.fault("makes no speech of texts"));
        }
        let voices = programs.iter().flat_map(|program| list(program, "voices"));
        let names = voices.filter_map(|voice| voice["name"].as_str().map(str::to_owned));
        Ok(names.collect())
    }

    /// Sends an event to the server, on a connection of its own.
    async fn ask(&self, event: &Event) -> Result<BufReader<TcpStream>, String> {
        let asked = timeout(self.patience, async {
            let mut stream = TcpStream::connect(&self.address).await?;
            framing::write(&mut stream, event).await?;
            Ok::<_, framing::Fault>(stream)
        });
        match asked.await {
            Ok(Ok(stream)) => Ok(BufReader::new(stream)),
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

/// A text that comes piece by piece, cut into what can be said one after the other: its sentences, short ones together with what follows.
#[derive(Debug, Default)]
pub struct Sentences {
    /// What is not cut off yet.
    rest: String,
}

impl Sentences {
    /// Takes in what comes next.
    pub fn push(&mut self, text: &str) {
        self.rest.push_str(text);
    }

    /// The next sentence, once it is known where it ends: with the beginning of what follows, or where no more comes.
    pub fn next(&mut self, is_over: bool) -> Option<String> {
        let rest = self.rest.trim_start();
        let end = end_of_sentence(rest);
        if rest.is_empty() || end == rest.len() && !is_over {
            return None;
        }
        let (sentence, behind) = rest.split_at(end);
        let (sentence, behind) = (sentence.trim_end().to_owned(), behind.to_owned());
        self.rest = behind;
        Some(sentence)
    }
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
        let cut = |text: &str| {
            let mut whole = Sentences::default();
            whole.push(text);
            let cut: Vec<String> = std::iter::from_fn(|| whole.next(true)).collect();
            // However it comes, it is cut alike.
            let (mut pieces, mut found) = (Sentences::default(), Vec::new());
            for letter in text.chars() {
                pieces.push(letter.encode_utf8(&mut [0; 4]));
                found.extend(pieces.next(false));
            }
            found.extend(std::iter::from_fn(|| pieces.next(true)));
            assert_eq!(found, cut);
            cut
        };
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
        assert_eq!(cut(" \n "), Vec::<String>::new());
        assert_eq!(
            cut("a list of things\nand more"),
            ["a list of things", "and more"]
        );
        // It is said as soon as something stands behind it.
        let mut coming = Sentences::default();
        coming.push("It is 21");
        coming.push(".");
        assert_eq!(coming.next(false), None);
        coming.push("5 degrees. ");
        assert_eq!(coming.next(false).as_deref(), Some("It is 21.5 degrees."));
    }
}
