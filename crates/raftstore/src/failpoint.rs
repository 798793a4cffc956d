//! Named places where a test can make an operation stop as if the process had died there.

#[cfg(test)]
use std::cell::RefCell;

#[cfg(test)]
thread_local! {
    static ARMED: RefCell<Option<&'static str>> = const { RefCell::new(None) };
}

/// Fails when a test has armed `name` on this thread; does nothing otherwise.
#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "only tests make it fail"))]
pub(crate) fn hit(name: &'static str) -> std::io::Result<()> {
    #[cfg(test)]
    if ARMED.with_borrow(|armed| *armed == Some(name)) {
        return Err(std::io::Error::other(format!("failpoint {name}")));
    }
    let _ = name;
    Ok(())
}

/// Arms (or disarms) a failpoint on this thread.
#[cfg(test)]
pub(crate) fn arm(name: Option<&'static str>) {
    ARMED.set(name);
}
