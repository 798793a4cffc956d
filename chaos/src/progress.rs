//! What is shown while a run goes on: a live line on a terminal, a line per step elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use crate::meter::Bucket;

/// Width of the bar.
const WIDTH: usize = 24;

/// Shows progress on standard error.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    start: Instant,
    total: usize,
}

impl Progress {
    /// For so many steps.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self { terminal: std::io::stderr().is_terminal(), start: Instant::now(), total }
    }

    /// Shows what goes on.
    pub fn line(&mut self, text: &str) {
        self.show(&format!("{:>5.0} s  {text}", self.start.elapsed().as_secs_f32()));
    }

    /// Shows a step.
    pub fn step(&mut self, number: usize, what: &str, so_far: Bucket, leader: (u64, String)) {
        let filled = WIDTH * number / self.total.max(1);
        let bar: String = (0..WIDTH).map(|i| if i < filled { '#' } else { '-' }).collect();
        let (term, leader) = leader;
        self.line(&format!(
            "[{bar}] {number}/{}  {what}  | term {term}, {leader} led | {} answers, {} refused, \
             {} unknown",
            self.total, so_far.answered, so_far.refused, so_far.unknown
        ));
    }

    /// The last line stays.
    pub fn end(&mut self) {
        if self.terminal {
            eprintln!();
        }
    }

    fn show(&self, text: &str) {
        if self.terminal {
            // The line is replaced by the next one; a terminal that is gone needs none.
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "\r\x1b[2K{text}");
            let _ = stderr.flush();
        } else {
            eprintln!("{text}");
        }
    }
}
