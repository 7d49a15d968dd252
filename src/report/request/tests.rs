use super::*;
use crate::report::MAX_NAME_BYTES;

fn file() -> Option<Attachment> {
    Some(Attachment(b"file"[..].into()))
}

#[test]
fn what_is_incomplete_is_no_payload() {
    let ask = |prompt: &str, image, audio| {
        let prompt = prompt.to_owned();
        Ask::try_from(AskFields {
            prompt,
            image,
            audio,
            ..AskFields::default()
        })
    };
    assert_eq!(
        ask(" \n", None, None).unwrap_err().message,
        "`prompt` is empty"
    );
    assert!(ask("", file(), None).is_ok() && ask("", None, file()).is_ok());
    assert_eq!(ask("Why?", None, None).unwrap().prompt, "Why?");
    let both = AskFields {
        prompt: "?".to_owned(),
        schema: Some(serde_json::Value::Bool(true)),
        choices: Some(vec!["cat".to_owned()]),
        ..AskFields::default()
    };
    let error = Ask::try_from(both).unwrap_err();
    assert!(error.message.contains("exclude each other"), "{error:?}");
    assert!(Transcribe::try_from(TranscribeFields::default()).is_err());
    let describe = |camera: Option<&str>, image| {
        let camera = camera.map(str::to_owned);
        let fields = DescribeFields {
            camera,
            image,
            ..DescribeFields::default()
        };
        Describe::try_from(fields).map(|describe| describe.picture)
    };
    assert!(describe(None, None).is_err() && describe(Some("door"), file()).is_err());
    assert!(matches!(describe(None, file()), Ok(Picture::Attached(_))));
    assert!(matches!(
        describe(Some("door"), None),
        Ok(Picture::Camera(_))
    ));
    let cancel = |job, target| Cancel::try_from(CancelFields { job, target });
    let name = || Some("x".to_owned());
    assert!(cancel(None, None).is_err() && cancel(name(), name()).is_err());
    assert!(cancel(name(), None).is_ok() && cancel(None, name()).is_ok());
}

#[test]
fn no_answer_has_no_token() {
    let refused = |result: Result<(), ErrorBody>, is_refused: bool| match result {
        Ok(()) => assert!(!is_refused),
        Err(error) => assert!(is_refused && error.message.starts_with("max_tokens 0: ")),
    };
    for (max_tokens, is_refused) in [(None, false), (Some(1), false), (Some(0), true)] {
        let ask = AskFields {
            prompt: "?".to_owned(),
            max_tokens,
            ..AskFields::default()
        };
        refused(Ask::try_from(ask).map(drop), is_refused);
        let describe = DescribeFields {
            image: file(),
            max_tokens,
            ..DescribeFields::default()
        };
        refused(Describe::try_from(describe).map(drop), is_refused);
        let transcribe = TranscribeFields {
            audio: file(),
            max_tokens,
            ..TranscribeFields::default()
        };
        refused(Transcribe::try_from(transcribe).map(drop), is_refused);
    }
}

#[test]
fn what_is_no_name_is_refused_wherever_it_stands() {
    let long = || Some("x".repeat(MAX_NAME_BYTES + 1));
    let too_long = |result: Result<(), ErrorBody>, key: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
        assert!(error.message.contains(&format!("`{key}` has 257 bytes")));
    };
    let ask = |fields| Ask::try_from(fields).map(drop);
    let fields = || AskFields {
        prompt: "?".to_owned(),
        ..AskFields::default()
    };
    too_long(
        ask(AskFields {
            matformer: long(),
            ..fields()
        }),
        "matformer",
    );
    too_long(
        ask(AskFields {
            conversation: long(),
            ..fields()
        }),
        "conversation",
    );
    let camera = DescribeFields {
        camera: long(),
        ..DescribeFields::default()
    };
    too_long(Describe::try_from(camera).map(drop), "camera");
    let language = TranscribeFields {
        audio: file(),
        language: long(),
        ..TranscribeFields::default()
    };
    too_long(Transcribe::try_from(language).map(drop), "language");
    let job = CancelFields {
        job: long(),
        target: None,
    };
    too_long(Cancel::try_from(job).map(drop), "job");
    too_long(
        Name::new("microphone", long().unwrap()).map(drop),
        "microphone",
    );
}
