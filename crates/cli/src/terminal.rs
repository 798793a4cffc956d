//! This side of a program in a container: standard input and output, and the terminal.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use bytes::Bytes;
use nix::sys::termios::{self, SetArg, Termios};
use quorate_client::v1::output::Data;
use quorate_client::{PodInput, PodOutput, PodStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{CliError, Result};
use crate::output::print;

/// Bytes read from standard input at once.
const PIECE: usize = 32 * 1024;

/// The terminal without line editing, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let stdin = io::stdin();
        let failed =
            |e: nix::errno::Errno| CliError::local(format!("cannot set the terminal: {e}"));
        let before = termios::tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may have gone: then there is nothing to restore.
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0);
    }
}

/// How standard input and output are joined to a program.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    /// Our standard input goes to it.
    pub stdin: bool,
    /// It has a terminal.
    pub tty: bool,
}

/// Is a terminal wanted, and is there one? As kubectl has it: without one it goes on without.
pub fn tty(wanted: bool, stdin: bool) -> bool {
    if wanted && stdin && !io::stdin().is_terminal() {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        return false;
    }
    wanted
}

/// Joins our standard input and output to a program until it ends; its exit code, if it has
/// one.
pub async fn join(stream: PodStream, joined: Joined) -> Result<Option<i32>> {
    let PodStream { input, mut output } = stream;
    let raw = (joined.tty && joined.stdin).then(Raw::enter).transpose()?;
    let sending = send(input, joined);
    let result = tokio::select! {
        result = receive(&mut output) => result,
        error = sending => Err(error),
    };
    drop(raw);
    result
}

async fn receive(output: &mut PodOutput) -> Result<Option<i32>> {
    let mut code = None;
    while let Some(data) = output.next().await? {
        match data {
            Data::Stdout(data) => print::bytes(&data)?,
            Data::Stderr(data) => {
                let mut stderr = io::stderr().lock();
                stderr.write_all(&data)?;
                stderr.flush()?;
            }
            Data::Exit(exit) => code = Some(exit.code),
        }
    }
    Ok(code)
}

/// Sends input and sizes of the terminal. Ends only with an error that matters.
async fn send(input: PodInput, joined: Joined) -> CliError {
    let mut lines = joined.stdin.then(stdin);
    let mut resized = match signal(SignalKind::window_change()) {
        Ok(resized) => resized,
        Err(error) => return error.into(),
    };
    if joined.tty {
        resize(&input).await;
    }
    if !joined.stdin {
        // The program reads the end at once.
        let _ = input.end().await;
    }
    loop {
        let next = async {
            match &mut lines {
                Some(lines) => lines.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            piece = next => match piece {
                // When the program has ended, its exit is on the way.
                Some(piece) => if input.write(piece).await.is_err() { lines = None },
                None => {
                    lines = None;
                    let _ = input.end().await;
                }
            },
            _ = resized.recv(), if joined.tty => resize(&input).await,
        }
    }
}

async fn resize(input: &PodInput) {
    if let Some((terminal_size::Width(columns), terminal_size::Height(rows))) =
        terminal_size::terminal_size()
    {
        let _ = input.resize(columns.into(), rows.into()).await;
    }
}

/// Standard input in pieces, until its end.
fn stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    // Thread "stdin": reading cannot be cancelled; it ends with the process.
    let read = move || {
        let mut buffer = vec![0; PIECE];
        loop {
            match io::stdin().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let piece = Bytes::copy_from_slice(&buffer[..count]);
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("stdin".into()).spawn(read) {
        eprintln!("error: cannot read standard input: {error}");
    }
    receiver
}
