//! What people and programs write into options: numbers within their bounds, and the name that was probably meant.

use std::fmt::Display;

/// Looks whether a number lies within its bounds, both included; `key` is what it is called where it was written.
///
/// # Errors
/// It does not: what stands there and what may.
pub fn between<T: PartialOrd + Display>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), String> {
    // Not a number is in no range.
    if value >= least && value <= most {
        Ok(())
    } else {
        Err(format!("{key} is {value}; it must be {least} to {most}"))
    }
}

/// The name of `known` that is most like `name`, if one is at least so much `alike`: 1 is the same (Jaro-Winkler).
pub fn nearest<'a>(name: &str, known: &[&'a str], alike: f64) -> Option<&'a str> {
    let rated = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known));
    let (likeness, nearest) = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= alike).then_some(nearest)
}
