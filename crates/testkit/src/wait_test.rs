use std::cell::Cell;
use std::time::Duration;

use anyhow::bail;

use super::wait_for;

#[tokio::test]
async fn returns_the_value_once_the_condition_holds() {
    let looks = Cell::new(0);
    let (value, _) = wait_for("third look", Duration::from_secs(10), async || {
        looks.set(looks.get() + 1);
        if looks.get() < 3 {
            bail!("look {}", looks.get());
        }
        Ok(looks.get())
    })
    .await
    .unwrap();
    assert_eq!(value, 3);
}

#[tokio::test]
async fn says_what_it_waited_for_and_why_it_failed() {
    let error =
        wait_for("the moon", Duration::ZERO, async || -> anyhow::Result<()> { bail!("it is day") })
            .await
            .unwrap_err()
            .to_string();
    assert!(error.contains("the moon") && error.contains("it is day"), "{error}");
}
