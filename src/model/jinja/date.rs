//! `strftime`, in English and in UTC, of a time that is given: nothing here knows the day.

use minijinja::Error;

use super::run::{raise, unsupported};

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

/// A day and a time of it.
struct Moment {
    year: i64,
    /// From 1 on.
    month: usize,
    day: i64,
    /// From 1 on.
    day_of_year: i64,
    /// From Monday on, 0.
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

/// Of seconds since 1970, UTC.
pub fn strftime(seconds: i64, format: &str) -> Result<String, Error> {
    let moment = Moment::of(seconds);
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let padding = letters.clone().next().filter(|letter| *letter == '-');
        if padding.is_some() {
            letters.next();
        }
        let Some(directive) = letters.next() else { return raise("a date's format ends with `%`") };
        let part = moment.part(directive)?;
        // glibc's `%-d`.
        let short = || part.trim_start_matches('0').to_string();
        out.push_str(&match padding {
            Some(_) if part.bytes().all(|byte| byte.is_ascii_digit()) => match short().as_str() {
                "" => "0".to_string(),
                digits => digits.to_string(),
            },
            _ => part,
        });
    }
    Ok(out)
}

impl Moment {
    fn of(seconds: i64) -> Moment {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // The civil calendar from days, as Howard Hinnant writes it: eras of 400 years that begin in March.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let leap_day = i64::from(is_leap && month > 2);
        Moment {
            year,
            month: month as usize,
            day,
            day_of_year: before.get(month as usize - 1).copied().unwrap_or(0) + day + leap_day,
            weekday: (days + 3).rem_euclid(7) as usize,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    fn part(&self, directive: char) -> Result<String, Error> {
        let name = |names: &[&'static str], place: usize| names.get(place).copied().unwrap_or_default();
        let (day, month) = (name(&DAYS, self.weekday), name(&MONTHS, self.month - 1));
        let hour = if self.hour % 12 == 0 { 12 } else { self.hour % 12 };
        let half = if self.hour < 12 { "AM" } else { "PM" };
        Ok(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'B' => month.to_string(),
            'b' | 'h' => month.chars().take(3).collect(),
            'A' => day.to_string(),
            'a' => day.chars().take(3).collect(),
            'w' => ((self.weekday + 1) % 7).to_string(),
            'u' => (self.weekday + 1).to_string(),
            'j' => format!("{:03}", self.day_of_year),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'f' => "000000".to_string(),
            'p' => half.to_string(),
            'Z' | 'z' => String::new(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            'D' | 'x' => format!("{:02}/{:02}/{:02}", self.month, self.day, self.year.rem_euclid(100)),
            'T' | 'X' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'R' => format!("{:02}:{:02}", self.hour, self.minute),
            'c' => format!(
                "{} {} {:2} {:02}:{:02}:{:02} {}",
                self.part('a')?,
                self.part('b')?,
                self.day,
                self.hour,
                self.minute,
                self.second,
                self.year
            ),
            'n' => "\n".to_string(),
            't' => "\t".to_string(),
            '%' => "%".to_string(),
            other => return unsupported(format!("`%{other}` in a date")),
        })
    }
}
