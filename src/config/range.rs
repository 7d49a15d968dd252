//! Numbers within their bounds.

pub(super) fn between<T: PartialOrd + std::fmt::Display>(
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
