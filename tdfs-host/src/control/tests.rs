//! Tests of the control socket.

use super::{Answer, AskError, Control, Request, ask};
use crate::state::StateDir;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

fn with_server(path: &Path, test: impl FnOnce() + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let state = StateDir::open(path).unwrap();
        let control = Control::bind(&state).unwrap();
        let serving = control.serve(|request| async move {
            match request {
                Request::Status => Answer::Ok(serde_json::json!({"role": "test"})),
                other => Answer::Error(format!("{other:?} is not for this test")),
            }
        });
        tokio::select! {
            () = serving => {}
            done = tokio::task::spawn_blocking(test) => done.unwrap(),
        }
    });
}

#[test]
fn a_request_is_answered_also_below_a_very_long_path() {
    for name in ["short", &"long".repeat(50)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let asked = path.clone();
        with_server(&path, move || {
            let answer = ask(&asked, &Request::Status, Some(Duration::from_secs(5))).unwrap();
            assert_eq!(answer["role"], "test");
        });
        assert!(matches!(ask(&path, &Request::Status, None), Err(AskError::NotRunning)));
    }
}

#[test]
fn an_unknown_request_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let socket = path.join(super::SOCKET_NAME);
    with_server(&path, move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(b"{\"command\":\"dance\"}\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("not a request that this version knows"), "{answer}");
    });
    assert!(matches!(ask(Path::new("/nonexistent"), &Request::Status, None), Err(AskError::NotRunning)));
}
