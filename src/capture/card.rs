//! What ALSA's devices have in common, whether they record or play: their library's chatter, and why one cannot be used.

use alsa::device_name::HintIter;
use alsa::{Direction, Output};

/// Keeps ALSA's library from writing to standard error at every try: what it says on this thread is kept in memory, and what
/// was kept before is dropped.
pub(super) fn keep_quiet() {
    // It fails only where memory is out; then the library talks.
    Output::local_error_handler().ok();
}

/// The PCMs to record from that ALSA's configuration names, each with what ALSA says of it in one line.
///
/// # Errors
/// ALSA cannot list them; what it said.
pub(super) fn capture_names() -> Result<Vec<(String, String)>, String> {
    names(Direction::Capture)
}

/// The PCMs to play to, likewise.
///
/// # Errors
/// As of [`capture_names`].
pub(super) fn playback_names() -> Result<Vec<(String, String)>, String> {
    names(Direction::Playback)
}

fn names(direction: Direction) -> Result<Vec<(String, String)>, String> {
    keep_quiet();
    let hints = HintIter::new_str(None, "pcm")
        .map_err(|error| format!("ALSA cannot list its devices: {error}"))?;
    let fit = hints.filter(|hint| hint.direction.is_none_or(|its| its == direction));
    let named = fit.filter_map(|hint| {
        let description = hint.desc.unwrap_or_default();
        let words: Vec<&str> = description.split_whitespace().collect();
        Some((hint.name?, words.join(" ")))
    });
    // It takes everything and gives silence.
    Ok(named.filter(|(name, _)| name != "null").collect())
}

/// Why a PCM to record from cannot be used, in words that say what to do.
pub(super) fn explain_capture(device: &str, errno: i32) -> String {
    explain(device, errno, "dsnoop")
}

/// Why a PCM to play to cannot be used, in words that say what to do.
pub(super) fn explain_playback(device: &str, errno: i32) -> String {
    explain(device, errno, "dmix")
}

/// `shared` is the kind of PCM that several programs may have open.
fn explain(device: &str, errno: i32, shared: &str) -> String {
    let what = match errno {
        libc::EBUSY => {
            return format!(
                "ALSA device `{device}` is held by another program (PipeWire, PulseAudio or a recorder): give that program \
                 another card, or open a `{shared}` or `pipewire` device here, which can be shared"
            );
        }
        libc::EACCES | libc::EPERM => {
            "may not be opened by this user: add the user to the group `audio`, or set \
             `SupplementaryGroups=audio` in the service"
        }
        libc::ENOENT => {
            return format!(
                "ALSA device `{device}` does not exist: is it plugged in? `gemmad devices` lists the names there are"
            );
        }
        libc::ENODEV | libc::ENXIO | libc::EBADFD | libc::EIO | libc::ESHUTDOWN => {
            "is gone: it was unplugged, or its driver gave up"
        }
        _ => {
            let error = std::io::Error::from_raw_os_error(errno);
            return format!("ALSA device `{device}` cannot be used: {error}");
        }
    };
    format!("ALSA device `{device}` {what}")
}
