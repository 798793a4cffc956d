//! One line per step on standard error; on a terminal the step that goes on is shown live.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// Prints steps.
pub struct Progress {
    terminal: bool,
    start: Instant,
    live: String,
}

impl Progress {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, start: Instant::now(), live: String::new() }
    }

    /// A step that is done.
    pub fn step(&mut self, text: &str) {
        self.clear();
        let seconds = self.start.elapsed().as_secs_f32();
        if self.terminal {
            eprintln!("\x1b[32m✓\x1b[0m {text} \x1b[2m({seconds:.1} s)\x1b[0m");
        } else {
            eprintln!("{text} ({seconds:.1} s)");
        }
    }

    /// What is waited for now. Nothing on anything but a terminal.
    pub fn waiting(&mut self, text: &str) {
        if !self.terminal || text == self.live {
            return;
        }
        self.live = text.to_owned();
        eprint!("\r\x1b[K… {text}");
        // A lost progress line is no reason to fail.
        let _ = std::io::stderr().flush();
    }

    /// Removes the live line.
    pub fn clear(&mut self) {
        if self.terminal && !self.live.is_empty() {
            self.live.clear();
            eprint!("\r\x1b[K");
        }
    }
}
