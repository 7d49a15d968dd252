//! Texts become sound: a text-to-speech server makes it sentence by sentence, for speeches whose turn has come and no others.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::requests::error;
use crate::capture::options::SpeakerOptions;
use crate::media::{Audible, AudioClip, Turn};
use crate::publish::wyoming::Voice;
use crate::report::{ErrorBody, ErrorCode};

/// Stretches of sound that may wait for the speaker: some seconds.
const PIECES: usize = 32;

/// How often it is looked whether the speaker has room for more.
const LOOK: Duration = Duration::from_millis(20);

/// Who makes sound of texts, where somebody does.
pub fn voice(options: &SpeakerOptions) -> Option<Voice> {
    Some(Voice {
        address: options.tts_address()?.to_owned(),
        name: options.tts_voice.clone(),
        patience: Duration::from_secs(options.tts_patience_s.into()),
    })
}

pub(super) fn wanted_voice(options: &SpeakerOptions) -> Result<Voice, ErrorBody> {
    voice(options).ok_or_else(|| {
        error(
            ErrorCode::NotFound,
            "texts cannot be said: [speaker] tts names no text-to-speech server",
        )
    })
}

/// Where sentences go that are to be made sound, no more than a prompt or an answer has; and that sound.
pub(super) fn made_of_sentences(voice: Voice) -> (UnboundedSender<String>, Audible) {
    let (given, sentences) = unbounded_channel();
    let (pieces, taken) = sync_channel(PIECES);
    let (turn, has_come) = watch::channel(false);
    let turn = Turn::new(move || {
        turn.send_replace(true);
    });
    tokio::spawn(in_turn(has_come, synthesize(voice, sentences, pieces)));
    let sound = Audible::Stream {
        pieces: taken,
        turn,
    };
    (given, sound)
}

/// Does `work` from when its turn comes, and no longer than somebody wants it: a server is asked for nothing that waits.
async fn in_turn(mut turn: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    if turn.wait_for(|has_come| *has_come).await.is_ok() {
        tokio::select! {
            _ = turn.changed() => {}
            () = work => {}
        }
    }
}

/// Has sentences made sound one by one, as they come and as fast as the speaker takes it.
async fn synthesize(
    voice: Voice,
    mut sentences: UnboundedReceiver<String>,
    pieces: SyncSender<Result<AudioClip, String>>,
) {
    while let Some(sentence) = sentences.recv().await {
        let mut spoken = match voice.say(&sentence).await {
            Ok(spoken) => spoken,
            Err(reason) => {
                give(&pieces, Err(reason)).await;
                return;
            }
        };
        while let Some(piece) = spoken.next().await {
            let failed = piece.is_err();
            if !give(&pieces, piece).await || failed {
                return;
            }
        }
    }
}

/// Hands over a piece once there is room for it; false where nobody wants it any more.
async fn give(
    pieces: &SyncSender<Result<AudioClip, String>>,
    mut piece: Result<AudioClip, String>,
) -> bool {
    loop {
        match pieces.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) => piece = back,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A server that takes what it is asked, and says nothing.
    async fn server() -> (TcpListener, Voice) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let voice = Voice {
            address: listener.local_addr().unwrap().to_string(),
            name: None,
            patience: Duration::from_secs(600),
        };
        (listener, voice)
    }

    #[tokio::test]
    async fn a_server_is_asked_when_the_turn_comes_and_left_when_nobody_wants_it_any_more() {
        let (listener, voice) = server().await;
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let (given, sound) = made_of_sentences(voice.clone());
                given.send(format!("This is {n}.")).unwrap();
                (given, sound)
            })
            .collect();
        // All of them wait; one is dropped, as by a flood, and the turn of another comes.
        for (n, (_given, sound)) in waiting.into_iter().enumerate() {
            let Audible::Stream { pieces, turn } = sound else {
                unreachable!()
            };
            if n % 10 != 7 {
                continue;
            }
            turn.comes();
            let (mut asked, _) = listener.accept().await.unwrap();
            let (mut read, mut text) = (vec![0; 4096], String::new());
            while !text.contains(&format!("This is {n}.")) {
                let count = asked.read(&mut read).await.unwrap();
                assert!(count > 0, "{text}");
                text += &String::from_utf8_lossy(&read[..count]);
            }
            // It is stopped while the server still thinks.
            drop((pieces, turn));
            while asked.read(&mut read).await.is_ok_and(|count| count > 0) {}
        }
    }
}
