//! What is taken away from the run that a seed draws, as the command line says it: a failing run that still fails with
//! less in it is easier to understand.

use std::collections::{BTreeMap, BTreeSet};

use crate::scenario::{At, MILLISECOND, Scenario};

/// Something that is always a little broken and can be mended for a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Calm {
    /// No datagram is lost, but by faults.
    Loss,
    /// None is delivered twice.
    Duplicate,
    /// None is damaged.
    Corrupt,
    /// None comes back later.
    Replay,
    /// None takes twenty times as long.
    Late,
    /// All take the same time.
    Latency,
    /// No settlement is lost.
    Settlements,
    /// No acknowledgement of a publication is lost.
    Publications,
    /// No delivery is lost.
    Deliveries,
    /// No request is lost.
    Requests,
    /// Disks are fast.
    Disks,
    /// Processors are fast.
    Processors,
    /// All wall clocks show the true time.
    Clocks,
    /// All nodes start at once.
    Starts,
}

impl Calm {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Loss,
        Self::Duplicate,
        Self::Corrupt,
        Self::Replay,
        Self::Late,
        Self::Latency,
        Self::Settlements,
        Self::Publications,
        Self::Deliveries,
        Self::Requests,
        Self::Disks,
        Self::Processors,
        Self::Clocks,
        Self::Starts,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Corrupt => "corrupt",
            Self::Replay => "replay",
            Self::Late => "late",
            Self::Latency => "latency",
            Self::Settlements => "settlements",
            Self::Publications => "publications",
            Self::Deliveries => "deliveries",
            Self::Requests => "requests",
            Self::Disks => "disks",
            Self::Processors => "processors",
            Self::Clocks => "clocks",
            Self::Starts => "starts",
        }
    }

    /// The one of that name.
    ///
    /// # Errors
    /// If there is none; says which there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|calm| calm.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("nothing of that name can be mended; there are {}", known.join(", "))
        })
    }

    fn apply(self, scenario: &mut Scenario) {
        let rates = &mut scenario.rates;
        match self {
            Self::Loss => rates.loss = 0,
            Self::Duplicate => rates.duplicate = 0,
            Self::Corrupt => rates.corrupt = 0,
            Self::Replay => rates.replay = 0,
            Self::Late => rates.late = 0,
            Self::Latency => rates.latency.1 = rates.latency.0,
            Self::Settlements => rates.settlement_lost = 0,
            Self::Publications => rates.publication_lost = 0,
            Self::Deliveries => rates.delivery_lost = 0,
            Self::Requests => rates.request_lost = 0,
            Self::Disks => rates.write = rates.write.min(MILLISECOND),
            Self::Processors => rates.compute = rates.compute.min(MILLISECOND),
            Self::Clocks => scenario.clock_offsets_ms.iter_mut().for_each(|offset| *offset = 0),
            Self::Starts => scenario.starts.iter_mut().for_each(|start| *start = 0),
        }
    }
}

/// Everything that is taken away. Numbers are those of the drawn scenario (`--show`), whatever else is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Faults that do not happen.
    pub without_faults: BTreeSet<usize>,
    /// Steps that clients leave out.
    pub without_steps: BTreeSet<usize>,
    /// What is not broken a little.
    pub calm: BTreeSet<Calm>,
    /// Faults that end at another time.
    pub fault_until: BTreeMap<usize, At>,
    /// When the first phase ends, if not when it was drawn.
    pub heal_at: Option<At>,
    /// How chance falls in the world.
    pub luck: u64,
}

impl Changes {
    /// Changes a scenario.
    ///
    /// # Errors
    /// If it has no such fault or step.
    pub fn apply(&self, scenario: &mut Scenario) -> Result<(), String> {
        let known = |what: &str, number: Option<&usize>, count: usize| match number {
            Some(number) if *number >= count => Err(format!("there is no {what} {number}: the seed draws {count}")),
            _ => Ok(()),
        };
        known("fault", self.without_faults.last(), scenario.faults.len())?;
        known("fault", self.fault_until.keys().next_back(), scenario.faults.len())?;
        known("step", self.without_steps.last(), scenario.steps.len())?;
        scenario.without_faults = self.without_faults.clone();
        scenario.without_steps = self.without_steps.clone();
        for (fault, until) in &self.fault_until {
            if let Some(fault) = scenario.faults.get_mut(*fault) {
                fault.until = (*until).max(fault.from);
            }
        }
        for calm in &self.calm {
            calm.apply(scenario);
        }
        if let Some(at) = self.heal_at {
            scenario.healed_at = at;
        }
        scenario.luck = self.luck;
        let earliest = earliest_heal(scenario);
        if scenario.healed_at < earliest {
            return Err(format!(
                "the first phase cannot end at {} us: something happens until {earliest} us",
                scenario.healed_at
            ));
        }
        Ok(())
    }

    /// The flags that make these changes, with a space before each.
    #[must_use]
    pub fn flags(&self) -> String {
        let list = |items: Vec<String>| items.join(",");
        let mut flags = String::new();
        let mut flag = |name: &str, value: String| {
            if !value.is_empty() {
                flags.push_str(&format!(" --{name} {value}"));
            }
        };
        flag("without-faults", list(self.without_faults.iter().map(ToString::to_string).collect()));
        flag("without-steps", list(self.without_steps.iter().map(ToString::to_string).collect()));
        flag("calm", list(self.calm.iter().map(|calm| calm.name().to_owned()).collect()));
        flag("fault-until", list(self.fault_until.iter().map(|(fault, at)| format!("{fault}={at}")).collect()));
        flag("heal-at", self.heal_at.map(|at| at.to_string()).unwrap_or_default());
        flag("luck", if self.luck == 0 { String::new() } else { self.luck.to_string() });
        flags
    }
}

/// The first phase must outlast everything that happens in it.
#[must_use]
pub fn earliest_heal(scenario: &Scenario) -> At {
    let faults = scenario.faults.iter().enumerate().filter(|(at, _)| !scenario.without_faults.contains(at));
    let steps = scenario.steps.iter().enumerate().filter(|(at, _)| !scenario.without_steps.contains(at));
    let ends = faults.map(|(_, fault)| fault.until).chain(steps.map(|(_, step)| step.at)).max().unwrap_or(0);
    // Every node has been started by then, and the last step has reached the queue.
    ends.max(scenario.starts.iter().copied().max().unwrap_or(0)) + MILLISECOND
}
