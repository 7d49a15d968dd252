//! What ALSA's devices have in common, whether they record or play: their library's chatter, and why one cannot be used.

use alsa::Output;

/// Keeps ALSA's library from writing to standard error at every try: what it says on this thread is kept in memory, and what
/// was kept before is dropped.
pub(super) fn keep_quiet() {
    // It fails only where memory is out; then the library talks.
    Output::local_error_handler().ok();
}

/// Why a PCM to record from cannot be used, in words that say what to do.
pub(super) fn explain_capture(device: &str, errno: i32) -> String {
    explain(device, errno, "dsnoop", "gemmad devices")
}

/// Why a PCM to play to cannot be used, in words that say what to do.
pub(super) fn explain_playback(device: &str, errno: i32) -> String {
    explain(device, errno, "dmix", "aplay -L")
}

/// `shared` is the kind of PCM that several programs may have open; `lists` tells which there are.
fn explain(device: &str, errno: i32, shared: &str, lists: &str) -> String {
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
                "ALSA device `{device}` does not exist: is it plugged in? `{lists}` lists the names there are"
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
