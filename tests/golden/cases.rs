//! The cases of the goldens that hold pictures and sound.

use serde_json::Value;

/// One of them, with the picture and the clip that it shows.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) picture: &'static str,
    pub(crate) clip: &'static str,
}

/// All three; the last one shows `second` of the pictures.
pub(crate) const fn cases(second: &'static str) -> [Case; 3] {
    [
        Case {
            name: "image",
            picture: "photo",
            clip: "",
        },
        Case {
            name: "audio",
            picture: "",
            clip: "a3_2",
        },
        Case {
            name: "both",
            picture: second,
            clip: "a0_5",
        },
    ]
}

/// What the user says in a case, in order.
pub(crate) enum Said {
    Text(String),
    Picture,
    Clip,
}

/// How the reference writes the turn of a user, and the places of media in it.
pub(crate) struct Marks {
    pub(crate) before: &'static str,
    pub(crate) behind: &'static str,
    pub(crate) picture: &'static str,
    pub(crate) clip: &'static str,
}

impl Marks {
    /// Taken from the reference's rendering of the chat.
    pub(crate) fn said(&self, manifest: &Value, case: &Case) -> Vec<Said> {
        let rendered = &manifest[format!("mm_{}", case.name)]["text"];
        let user = rendered.as_str().unwrap().strip_prefix(self.before);
        let mut rest = user.unwrap().strip_suffix(self.behind).unwrap();
        let mut parts = Vec::new();
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix(self.picture) {
                parts.push(Said::Picture);
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix(self.clip) {
                parts.push(Said::Clip);
                rest = behind;
            } else {
                let marks = [self.picture, self.clip].map(|mark| rest.find(mark));
                let end = marks.into_iter().flatten().min().unwrap_or(rest.len());
                parts.push(Said::Text(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
        parts
    }
}
