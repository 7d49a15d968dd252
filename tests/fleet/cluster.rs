//! Three NATS servers that keep every job, of which one goes for good.

use std::path::Path;
use std::time::Duration;

use crate::broker::free_port;
use crate::crew::Hand;
use crate::load::{Load, run, waits};
use crate::nats::Nats;

fn cluster(dir: &Path) -> Vec<Nats> {
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let routes: Vec<String> = ports
        .iter()
        .map(|(_, route)| format!("nats://127.0.0.1:{route}"))
        .collect();
    let server = |(n, (port, route)): (usize, &(u16, u16))| {
        let place = dir.join(format!("server{n}"));
        std::fs::create_dir(&place).unwrap();
        let settings = format!(
            "server_name: server{n}\ncluster {{ name: home, listen: \"127.0.0.1:{route}\", routes: [{}] }}",
            routes.join(", ")
        );
        Nats::start_with(&place, *port, &settings)
    };
    ports.iter().enumerate().map(server).collect()
}

#[test]
fn a_cluster_of_three_that_loses_one_loses_no_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = cluster(dir.path());
    let urls: Vec<String> = servers.iter().map(Nats::url).collect();
    let url = urls.join(",");
    let mut hands = ["one", "two", "three"].map(|node| Hand::start(&url, node, 100));
    let load = Load {
        jobs: 120,
        every: Duration::from_millis(300),
        kill_every: 40,
        harms: 1,
        job: |n| waits(n, 120),
    };
    // Nobody starts it again.
    let figures = run(load, &url, &mut hands, &mut || servers[0].kill());
    assert_eq!((figures.done, figures.poison), (119, 1), "{figures:?}");
    figures.show();
}
