//! Boards in earshot of each other: of those that hear the same wake word, one answers.

use std::path::PathBuf;

use serde_json::Value;

use crate::broker::{Seen, wait_until};
use crate::file_pcm::raw_file;
use crate::process::{Bench, Gemmad};
use crate::speech::Ear;
use crate::wake::microphone;

const BOARDS: [&str; 3] = ["attic", "bath", "cellar"];
/// Each listens for a word of its own, so that as many rounds are played at once.
const MICROPHONES: usize = 5;
const ROUNDS: usize = 4;

/// A daemon of that name, with its microphones' pipes.
struct Board {
    gemmad: Gemmad,
    ears: Vec<Ear>,
}

impl Board {
    fn start(bench: &Bench, name: &str) -> Board {
        let place: PathBuf = bench.dir.path().join(name);
        std::fs::create_dir(&place).unwrap();
        let mut microphones = String::new();
        let mut ears = Vec::new();
        for n in 0..MICROPHONES {
            let id = format!("m{n}");
            microphones += &microphone(&place, &id, "009_both.wav", &format!("Word {n}"), false);
            microphones += "settle_ms = 10000\n";
            ears.push(Ear::new(&raw_file(&place, &id)));
        }
        let queue = "[queue]\nutterances = 64\nutterances_mib = 4096\njobs = 64\n";
        let config = bench.write_config(None, "", &(queue.to_owned() + &microphones));
        let text = std::fs::read_to_string(config).unwrap();
        let text = text.replace("node = \"pi\"", &format!("node = {name:?}"));
        std::fs::write(place.join("gemmad.toml"), text).unwrap();
        let gemmad = Gemmad::spawn(&place, &[]);
        wait_until("the board listens", || {
            let is_online = |topic: &str| {
                let seen = bench.observer.on(&format!("gemmad/{name}/{topic}"));
                seen.last().is_some_and(|last| last.text() == "online")
            };
            is_online("state") && (0..MICROPHONES).all(|n| is_online(&format!("mic/m{n}/state")))
        });
        Board { gemmad, ears }
    }
}

/// What was heard by one microphone of any board.
fn events(bench: &Bench, n: usize) -> Vec<Value> {
    let of = |board: &&str| bench.observer.on(&format!("gemmad/{board}/mic/m{n}/event"));
    let all = BOARDS.iter().flat_map(of);
    all.map(|seen| seen.json()).collect()
}

/// The clip, so much quieter.
fn quieter(words: &[u8], share: f32) -> Vec<u8> {
    let samples = words.as_chunks().0.iter();
    let scaled = samples.map(|x| (f32::from(i16::from_le_bytes(*x)) * share) as i16);
    scaled.flat_map(i16::to_le_bytes).collect()
}

#[test]
fn of_three_boards_that_hear_a_word_one_answers_and_without_a_broker_at_least_one() {
    let mut bench = Bench::new();
    let clip = bench.dir.path().join("clip.raw");
    crate::file_pcm::write_speech(&clip, "009_both.wav");
    let words = std::fs::read(&clip).unwrap();
    let levels = [1.0, 0.5, 0.2].map(|share| quieter(&words, share));
    let mut boards = BOARDS.map(|name| Board::start(&bench, name));
    let hear = |boards: &mut [Board; 3], round: usize, microphones: std::ops::Range<usize>| {
        std::thread::scope(|scope| {
            for (at, board) in boards.iter_mut().enumerate() {
                let (levels, microphones) = (&levels, microphones.clone());
                scope.spawn(move || {
                    for n in microphones {
                        board.ears[n].hears(&levels[(at + n + round) % 3]);
                    }
                });
            }
        });
    };
    for round in 0..ROUNDS {
        hear(&mut boards, round, 0..MICROPHONES);
        wait_until("somebody answers each word", || {
            (0..MICROPHONES).all(|n| events(&bench, n).len() > round)
        });
    }
    // All the others have given way.
    let yielded = |bench: &Bench| -> u64 {
        let of = |board: &&str| {
            bench
                .broker
                .publish(&format!("gemmad/{board}/request/stats"), b"{}", &[]);
            let topic = format!("gemmad/{board}/response/stats");
            let seen = bench.observer.on(&topic).len();
            let last: Seen = bench.observer.wait_for(&topic, seen + 1)[seen].clone();
            last.json()["data"]["details"]["queues"]["yielded"]
                .as_u64()
                .unwrap()
        };
        BOARDS.iter().map(of).sum()
    };
    let rounds = ROUNDS * MICROPHONES;
    wait_until("the others give way", || {
        yielded(&bench) == 2 * rounds as u64
    });
    let answered: usize = (0..MICROPHONES).map(|n| events(&bench, n).len()).sum();
    assert_eq!(answered, rounds);

    // Who answered was the loudest, the surest, the first by name, as everybody could hear.
    let claims: Vec<Value> = bench
        .observer
        .on("gemmad/woken")
        .iter()
        .map(Seen::json)
        .collect();
    assert_eq!(claims.len(), 3 * rounds);
    for n in 0..MICROPHONES {
        let word = format!("Word {n}");
        let claims = claims
            .iter()
            .filter(|claim| claim["phrase"] == word.as_str());
        let claims: Vec<&Value> = claims.collect();
        let mut wanted: Vec<&str> = claims.chunks(3).map(best).collect();
        let mut found: Vec<&str> = Vec::new();
        for board in BOARDS {
            let topic = format!("gemmad/{board}/mic/m{n}/event");
            found.extend(bench.observer.on(&topic).iter().map(|_| board));
        }
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{claims:?}");
    }

    // While the broker is away nobody hears of the others: nobody gives way.
    for round in 0..2 {
        let before: usize = events(&bench, round).len();
        bench.broker.kill();
        hear(&mut boards, round, round..round + 1);
        bench.broker.restart();
        wait_until("somebody answers", || events(&bench, round).len() > before);
    }
    bench.assert_schemas();
    for board in boards {
        board.gemmad.stop();
    }
}

/// The board whose claim of one round is the best.
fn best<'v>(claims: &[&'v Value]) -> &'v str {
    let number =
        |claim: &Value, key: &str, by: f64| (claim[key].as_f64().unwrap() * by).round() as i64;
    let rank = |claim: &&&Value| {
        let name = claim["node"].as_str().unwrap();
        let place = BOARDS.iter().position(|board| *board == name).unwrap();
        (
            number(claim, "dbfs", 1.0),
            number(claim, "score", 10.0),
            3 - place,
        )
    };
    claims.iter().max_by_key(rank).unwrap()["node"]
        .as_str()
        .unwrap()
}
