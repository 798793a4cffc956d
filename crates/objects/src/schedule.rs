//! Schedules of CronJobs: five fields or a name such as `@hourly`, in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Fields that Kubernetes' schedules have.
const FIELDS: usize = 5;

/// When something is to happen again and again.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// The text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The fields are wrong.
    #[error("{0}")]
    Syntax(String),
    /// There is no such time zone.
    #[error("unknown time zone {0}")]
    TimeZone(String),
    /// It names a day that no year has.
    #[error("the schedule never fires: no year has such a day")]
    Never,
}

impl Schedule {
    /// Parses `minute hour day-of-month month day-of-week`; without a time zone it is UTC,
    /// wherever the leader happens to run.
    ///
    /// # Errors
    /// [`ScheduleError`]
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        if text.contains("TZ=") {
            let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            return Err(ScheduleError::Syntax(text.into()));
        }
        let count = text.split_whitespace().count();
        if !text.starts_with('@') && count != FIELDS {
            let text = format!("expected exactly {FIELDS} fields, found {count}: {text:?}");
            return Err(ScheduleError::Syntax(text));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let cron =
            parser.build().parse(text).map_err(|error| ScheduleError::Syntax(error.to_string()))?;
        let zone = match zone.filter(|zone| !zone.is_empty()) {
            None => TimeZone::UTC,
            Some("Local") => return Err(ScheduleError::TimeZone("Local".into())),
            Some(name) => {
                TimeZone::get(name).map_err(|_| ScheduleError::TimeZone(name.to_owned()))?
            }
        };
        let schedule = Self { cron, zone };
        if schedule.next_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(ScheduleError::Never);
        }
        Ok(schedule)
    }

    /// The first time after `after`; `None` when there is none.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp())
    }

    /// The last time at or before `now`; `None` when there is none.
    #[must_use]
    pub fn last_before(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        self.cron.find_previous_occurrence(&now, true).ok().map(|last| last.timestamp())
    }
}

#[cfg(test)]
#[path = "schedule_test.rs"]
mod tests;
