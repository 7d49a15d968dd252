//! scratch
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "scratch"
)]
use earshot::Detector;
use std::process::Command;
fn sox(args: &[&str]) -> Vec<f32> {
    let out = Command::new("sox")
        .args(args)
        .args([
            "-t", "raw", "-r", "16000", "-c", "1", "-e", "signed", "-b", "16", "-",
        ])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
        .chunks_exact(2)
        .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
        .collect()
}
fn rms(x: &[f32]) -> f32 {
    (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32).sqrt()
}
#[test]
fn explore() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/heldout/audio");
    let mut names: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wav"))
        .collect();
    names.sort();
    let bar = |s: f32| char::from_digit((s * 9.99) as u32, 10).unwrap();
    for n in &names[..4] {
        let clip = sox(&[n.to_str().unwrap()]);
        println!("{} rms {:.4}", n.display(), rms(&clip));
        for snr in [99.0f32, 20.0, 10.0, 5.0] {
            for color in ["whitenoise", "pinknoise", "brownnoise"] {
                if snr > 90.0 && color != "whitenoise" {
                    continue;
                }
                let len = 2.0 + clip.len() as f32 / 16000.0 + 2.0;
                let mut x: Vec<f32> = Vec::new();
                x.clear();
                let l = len.to_string();
                let out = Command::new("sox")
                    .args([
                        "-R", "-n", "-t", "raw", "-r", "16000", "-c", "1", "-e", "signed", "-b",
                        "16", "-", "synth", &l, color,
                    ])
                    .output()
                    .unwrap();
                x.extend(
                    out.stdout
                        .chunks_exact(2)
                        .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0),
                );
                let g = rms(&clip) / rms(&x) / 10f32.powf(snr / 20.0);
                for v in &mut x {
                    *v *= g
                }
                for (i, v) in clip.iter().enumerate() {
                    x[32000 + i] += v
                }
                let mut d = Detector::default_boxed();
                let s: String = x
                    .chunks_exact(256)
                    .map(|f| {
                        let f: Vec<f32> = f.iter().map(|v| v.clamp(-1., 1.)).collect();
                        bar(d.predict_f32(&f).clamp(0., 1.))
                    })
                    .collect();
                println!("{snr:>4} {color:<10} {s}");
            }
        }
    }
    for color in ["whitenoise", "pinknoise", "brownnoise"] {
        for vol in ["0.3", "0.03", "0.003"] {
            let out = Command::new("sox")
                .args([
                    "-R", "-n", "-t", "raw", "-r", "16000", "-c", "1", "-e", "signed", "-b", "16",
                    "-", "synth", "60", color, "vol", vol,
                ])
                .output()
                .unwrap();
            let mut d = Detector::default_boxed();
            let mut over = [0; 10];
            let mut run = 0;
            let mut longest = 0;
            let x: Vec<f32> = out
                .stdout
                .chunks_exact(2)
                .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
                .collect();
            for f in x.chunks_exact(256) {
                let s = d.predict_f32(f).clamp(0., 1.);
                over[(s * 9.99) as usize] += 1;
                if s >= 0.5 {
                    run += 1;
                    longest = longest.max(run)
                } else {
                    run = 0
                }
            }
            println!("{color} {vol}: {over:?} longest run {longest}");
        }
    }
}
