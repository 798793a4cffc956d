use super::*;

#[tokio::test]
async fn channels_become_input() {
    let (input, mut received) = mpsc::channel(8);
    for message in [
        &[STDIN, b'h', b'i'][..],
        &[RESIZE, b'{', b'}'],
        b"\x04{\"Width\": 80, \"Height\": 24}",
        &[9, 1],
        &[],
        &[CLOSE, STDIN],
    ] {
        assert!(from_channel(&Bytes::copy_from_slice(message), &input).await.is_ok());
    }
    drop(input);
    let mut all = Vec::new();
    while let Some(one) = received.recv().await {
        all.extend(one.data);
    }
    let size = v1::TerminalSize { columns: 80, rows: 24 };
    assert_eq!(
        all,
        [Input::Stdin(Bytes::from_static(b"hi")), Input::Resize(size), Input::End(true)]
    );
}

#[test]
fn the_exit_code_is_a_cause() {
    assert_eq!(exited(0)["status"], "Success");
    let failure = exited(3);
    assert_eq!(failure["reason"], "NonZeroExitCode");
    assert_eq!(failure["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
}
