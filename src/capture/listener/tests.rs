use std::sync::mpsc::channel;

use super::*;

/// Reads as they are listed, then as a device that was unplugged.
struct Script(Vec<Heard>);

fn listener(config: &str, tell: std::sync::mpsc::Sender<CaptureEvent>, open: Open) -> Listener {
    let teller = Teller::new(
        "hall".into(),
        |id, state| CaptureEvent::Microphone {
            id,
            event: MicrophoneEvent::State(state),
        },
        Box::new(move |event| tell.send(event).is_ok()),
    );
    let config = toml::from_str(config).unwrap();
    Listener::new(config, false, Arc::default(), teller, open)
}

#[test]
fn a_flood_of_the_button_delays_no_mute() {
    let any = Heard {
        any: true,
        overrun: false,
    };
    let (tell, events) = channel();
    let open: Open = Box::new(move |_| Ok(Box::new(Script(vec![any; 20]))));
    let mut listener = listener("id = \"hall\"\ndevice = \"card\"", tell, open);
    let (control, controls) = channel();
    for _ in 0..500 {
        control.send(MicrophoneControl::Listen).unwrap();
    }
    control.send(MicrophoneControl::Mute(true)).unwrap();
    let thread = std::thread::spawn(move || listener.run(&controls).is_err());
    let first = loop {
        let CaptureEvent::Microphone { event, .. } = events.recv().unwrap() else {
            unreachable!()
        };
        if let MicrophoneEvent::State(state) = event {
            break state;
        }
    };
    assert_eq!(first, DeviceState::Off, "it listened meanwhile");
    drop(control);
    assert!(thread.join().unwrap());
}

impl Sound for Script {
    fn read(&mut self, _: Duration, samples: &mut Vec<f32>) -> Result<Heard, Unavailable> {
        let heard = self.0.pop().ok_or(Unavailable("it is gone".into()))?;
        samples.extend([0.0; 160]);
        Ok(heard)
    }
}

/// ALSA's `file` plugin hides every error of its file, so what a card does when it is pulled out is played here.
#[test]
fn a_device_pulled_out_while_it_is_read_comes_back_and_overruns_are_told() {
    let any = Heard {
        any: true,
        overrun: false,
    };
    let overrun = Heard {
        any: false,
        overrun: true,
    };
    let (tell, events) = channel();
    let teller = Teller::new(
        "hall".into(),
        |id, state| CaptureEvent::Microphone {
            id,
            event: MicrophoneEvent::State(state),
        },
        Box::new(move |event| tell.send(event).is_ok()),
    );
    let mut scripts = vec![vec![any; 3], vec![], vec![any, overrun, any]];
    let open: Open = Box::new(move |microphone| {
        assert_eq!(microphone.device, "card");
        let script = scripts.pop().ok_or(Unavailable("no more".into()))?;
        Ok(Box::new(Script(script)))
    });
    let config = "id = \"hall\"\ndevice = \"card\"";
    let mut listener = Listener::new(
        toml::from_str(config).unwrap(),
        false,
        Arc::default(),
        teller,
        open,
    );
    let (control, controls) = channel();
    let thread = std::thread::spawn(move || listener.run(&controls).is_err());
    let gone = |reason: &str| {
        MicrophoneEvent::State(DeviceState::Offline {
            reason: reason.into(),
        })
    };
    let online = || MicrophoneEvent::State(DeviceState::Online);
    for wanted in [
        online(),
        MicrophoneEvent::Overrun,
        gone("it is gone"),
        // The second device is gone before it gives anything: the same state, told once.
        online(),
        gone("it is gone"),
        gone("no more"),
    ] {
        match events.recv_timeout(Duration::from_secs(60)).unwrap() {
            CaptureEvent::Microphone { event, .. } => {
                assert_eq!(format!("{event:?}"), format!("{wanted:?}"));
            }
            event => panic!("{event:?}"),
        }
    }
    control.send(MicrophoneControl::Stop).unwrap();
    assert!(thread.join().unwrap());
}
