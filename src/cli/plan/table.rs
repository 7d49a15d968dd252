//! The plan for people.

use std::io::Write;

use super::{Flash, Report};
use crate::pipeline::DAY_TRANSCRIPTS;

pub(super) fn print(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:.1} GB of memory, {:.1} GB/s plain reading ({}); kernels here: {}; context {}",
        gb(report.memory_bytes),
        report.read_gb_s,
        how(report.read_measured),
        report.isa,
        report.context
    )?;
    if let Some(flash) = &report.flash {
        writeln!(out, "{}", flash_line(flash))?;
    }
    let names = report.rows.iter().map(|row| row.model.chars().count());
    let width = names.max().unwrap_or(0).max("model".len()) + 2;
    let load = match report.flash {
        Some(_) => ["load:", "text", "audio", "vision"].map(|title| format!("{title:>8}")),
        None => Default::default(),
    };
    let head = format!(
        "\n{:<width$}{:<10}{:<12}{:>7}{:>8}{:>8}{:>8}{:>11}{:>9}{:>9}  {:<6}{}",
        "model",
        "recipe",
        "slice",
        "flash",
        "idle",
        "speech",
        "motion",
        "per token",
        "plain",
        "guessed",
        "fits",
        load.concat(),
    );
    writeln!(out, "{}", head.trim_end())?;
    let seconds = match report.flash {
        Some(_) => format!("{:>16}{:>8}{:>8}", "s", "s", "s"),
        None => String::new(),
    };
    let units = format!(
        "{:<width$}{:>29}{:>8}{:>8}{:>8}{:>11}{:>9}{:>9}  {:<6}{seconds}",
        "", "GB", "GB", "GB", "GB", "MB", "tok/s", "tok/s", ""
    );
    writeln!(out, "{}", units.trim_end())?;
    for row in &report.rows {
        let load = row.projected_load_s_at_least.as_ref();
        let load = load.map_or_else(String::new, |load| {
            format!("{:>16.1}{:>8.1}{:>8.1}", load.text, load.audio, load.vision)
        });
        let line = format!(
            "{:<width$}{:<10}{:<12}{:>7.2}{:>8.2}{:>8.2}{:>8.2}{:>11.1}{:>9.1}{:>9.1}  {:<6}{load}",
            row.model,
            row.recipe,
            row.matformer,
            gb(row.flash_bytes),
            gb(row.resident_idle_bytes),
            gb(row.resident_speech_bytes),
            gb(row.resident_motion_bytes),
            row.weight_bytes_per_token as f64 / 1e6,
            row.projected_tok_s_at_most,
            row.projected_tok_s_guessed,
            row.fits
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(
        out,
        "\nidle, speech, motion: resident with the text model, with the audio tower too, with the vision tower too; a fifth of the\n\
         memory is left to others. tok/s is a projection, not a measurement: no more passes can be\n\
         made than memory gives weights; guessed: where people repeat themselves, and a pass has {DAY_TRANSCRIPTS:.0} tokens."
    )?;
    if report.flash.is_some() {
        writeln!(
            out,
            "load is a projection too: the text weights that the slice reads, and each tower, divided by what the flash gives; the\n\
             per-layer-embedding table is not loaded, but read by row."
        )?;
    }
    Ok(())
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn how(measured: bool) -> &'static str {
    match measured {
        true => "measured here",
        false => "as given",
    }
}

fn flash_line(flash: &Flash) -> String {
    let mut line = format!(
        "{:.0} MB/s from flash in one go ({})",
        flash.mb_s,
        how(flash.measured)
    );
    if let Some(row_ms) = flash.row_ms {
        line += &format!(", {row_ms:.2} ms for a row of the per-layer-embedding table");
    }
    if flash.through_page_cache {
        line += "; through the page cache, which this file system does not let be passed by: the real figures may be lower";
    }
    line
}
