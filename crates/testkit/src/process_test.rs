use std::time::Duration;

use super::run;

async fn shell(script: &str, input: Option<&str>) -> super::Output {
    run("sh", &["-c", script], &[], input).await.unwrap()
}

#[tokio::test]
async fn output_of_a_success() {
    assert_eq!(shell("cat", Some("in")).await.ok().unwrap(), "in");
    assert_eq!(shell("echo '[1]'", None).await.json().unwrap()[0], 1);
    assert!(shell("exit 3", None).await.ok().is_err());
}

#[tokio::test]
async fn a_failure_must_fail_and_must_say_so() {
    let failed = shell("echo No Such Pod >&2; exit 1", None).await;
    failed.fails_with(&["no such pod"]).unwrap();
    assert!(shell("exit 1", None).await.fails_with(&["reason"]).is_err());
    assert!(shell("echo reason >&2", None).await.fails_with(&["reason"]).is_err());
    assert!(shell("kill -9 $$", None).await.fails_with(&[]).is_err());
    let slow = shell("exit 1", None).await;
    assert!(slow.within(Duration::ZERO).is_err());
}
