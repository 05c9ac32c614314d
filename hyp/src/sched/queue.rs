//! One CPU's run queue: who runs, and who waits in the order of virtual time.
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Schedulable;
use super::entity::Virtual;
use crate::cpu::CpuId;
use crate::time::Ticks;

/// The run queue of one CPU. Whoever holds its lock may change every [`super::Entity`] whose home the CPU is.
pub(super) struct RunQueue<V> {
    /// Who runs here; `None` while the CPU idles.
    pub(super) current: Option<Arc<V>>,
    /// Since when nobody runs here; `None` while somebody does, and before the first choice.
    pub(super) idle_since: Option<Ticks>,
    /// Ticks that the CPU idled before that.
    pub(super) idled: u64,
    /// When the current slice ends.
    pub(super) slice_end: Ticks,
    /// When to compare loads with the other CPUs again.
    pub(super) next_balance: Ticks,
    /// Whom this CPU took work from last to balance.
    pub(super) last_victim: CpuId,
    /// Who waits, the next to run last: so that taking it moves nothing.
    waiting: Vec<Arc<V>>,
    /// Sum of the weights in `waiting`.
    weight: u32,
    /// Virtual time that nobody here has yet to reach; never goes back.
    floor: Virtual,
}

impl<V: Schedulable> RunQueue<V> {
    pub(super) const fn new() -> Self {
        Self {
            current: None,
            idle_since: None,
            idled: 0,
            slice_end: Ticks::new(0),
            next_balance: Ticks::new(0),
            last_victim: CpuId::BOOT,
            waiting: Vec::new(),
            weight: 0,
            floor: Virtual::ZERO,
        }
    }

    /// Number of vCPUs that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Weight of all that run or wait here.
    pub(super) fn load(&self) -> u32 {
        self.weight.saturating_add(self.current.as_ref().map_or(0, |v| v.entity().weight()))
    }

    pub(super) fn floor(&self) -> Virtual {
        self.floor
    }

    /// Books idle time: from now on `current` is who runs, or nobody.
    pub(super) fn note_idle(&mut self, now: Ticks) {
        if self.current.is_none() {
            self.idle_since.get_or_insert(now);
        } else if let Some(since) = self.idle_since.take() {
            self.idled = self.idled.wrapping_add(now.get().saturating_sub(since.get()));
        }
    }

    /// Ticks that the CPU idled until now.
    pub(super) fn idle_ticks(&self, now: Ticks) -> u64 {
        self.idled.wrapping_add(self.idle_since.map_or(0, |since| now.get().saturating_sub(since.get())))
    }

    /// Moves the floor up to the virtual time of who runs, or of `first` of those who wait, whichever is less.
    pub(super) fn raise_floor(&mut self, first: Option<usize>) {
        let current = self.current.as_ref().map(|v| v.entity().vruntime());
        let first = first.and_then(|index| self.get(index)).map(|v| v.entity().vruntime());
        let least = match (current, first) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return,
        };
        self.floor = self.floor.max(least);
    }

    pub(super) fn is_current(&self, v: &Arc<V>) -> bool {
        self.current.as_ref().is_some_and(|c| Arc::ptr_eq(c, v))
    }

    /// Adds one that waits; behind those with the same virtual time.
    pub(super) fn insert(&mut self, v: Arc<V>) {
        let vruntime = v.entity().vruntime();
        let at = self.waiting.partition_point(|w| vruntime.is_before(w.entity().vruntime()));
        self.weight += v.entity().weight();
        self.waiting.insert(at, v);
    }

    /// The index of the first in order for which `wanted` holds.
    pub(super) fn position(&self, mut wanted: impl FnMut(&V) -> bool) -> Option<usize> {
        self.waiting.iter().rposition(|v| wanted(v))
    }

    /// The vCPU at an index that [`Self::position`] gave.
    pub(super) fn get(&self, index: usize) -> Option<&Arc<V>> {
        self.waiting.get(index)
    }

    /// All that wait, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<V>> {
        self.waiting.iter().rev()
    }

    /// Takes out the vCPU at an index that [`Self::position`] gave.
    pub(super) fn take(&mut self, index: usize) -> Option<Arc<V>> {
        if index >= self.waiting.len() {
            return None;
        }
        let v = self.waiting.remove(index);
        self.weight = self.weight.saturating_sub(v.entity().weight());
        Some(v)
    }

    /// Takes out that vCPU, if it waits here.
    pub(super) fn take_out(&mut self, v: &Arc<V>) -> Option<Arc<V>> {
        let index = self.waiting.iter().position(|w| Arc::ptr_eq(w, v))?;
        self.take(index)
    }
}
