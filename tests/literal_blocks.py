"""Caches of blocks as plainly as they can be written, block by block, to hold those of `sim/store/blocks/` against."""

from collections import OrderedDict


class Vllm:
    """The whole algorithm of vLLM's KVCacheManager, one request at a time: a queue of free blocks, some with the name of what they hold."""

    def __init__(self, usable, block_tokens):
        self.free = OrderedDict.fromkeys(range(usable))
        self.name, self.copies, self.size = {}, {}, block_tokens

    def request(self, path, tokens):
        full, got = list(path)[: tokens // self.size], []
        for name in full[: (tokens - 1) // self.size]:
            if not self.copies.get(name):
                break
            got.append(next(iter(self.copies[name])))
        need = -(-tokens // self.size) - len(got)
        if need + len(got) > len(self.free):
            return 0
        for block in got:
            del self.free[block]
        new = [self.free.popitem(last=False)[0] for _ in range(need)]
        for block in new:
            if block in self.name:
                del self.copies[self.name.pop(block)][block]
        for block, name in zip(new, full[len(got) :], strict=False):
            self.name[block] = name
            self.copies.setdefault(name, OrderedDict())[block] = None
        for block in reversed(got + new):
            self.free[block] = None
            self.free.move_to_end(block, last=block in self.name)
        return len(got) * self.size


class Shared:
    """The same pool for requests that overlap: blocks count who uses them, and are free when nobody does."""

    def __init__(self, usable, block_tokens):
        self.free = OrderedDict.fromkeys(range(usable))
        self.name, self.copies, self.users, self.size = {}, {}, [0] * usable, block_tokens

    def hit(self, path, tokens):
        found = []
        for name in list(path)[: (tokens - 1) // self.size]:
            if not self.copies.get(name):
                break
            found.append(next(iter(self.copies[name])))
        return found

    def taken(self, path, tokens, context):
        return -(-context // self.size) - sum(self.users[block] > 0 for block in self.hit(path, tokens))

    def begin(self, path, tokens, context):
        mine = self.hit(path, tokens)
        for block in mine:
            self.free.pop(block, None)
        for _ in range(-(-context // self.size) - len(mine)):
            block = self.free.popitem(last=False)[0]
            if block in self.name:
                name = self.name.pop(block)
                del self.copies[name][block]
            mine.append(block)
        for block in mine:
            self.users[block] += 1
        return mine

    def computed(self, path, mine, hit, tokens):
        for name, block in list(zip(path, mine, strict=False))[hit : tokens // self.size]:
            if block not in self.name:
                self.name[block] = name
                self.copies.setdefault(name, OrderedDict())[block] = None

    def end(self, mine):
        for block in reversed(mine):
            self.users[block] -= 1
            if not self.users[block]:
                self.free[block] = None
                self.free.move_to_end(block, last=block in self.name)


class _Node:
    def __init__(self, parent, key):
        self.parent, self.key, self.children, self.used = parent, key, [], 0


class Sglang:
    """A radix tree of nodes that are cut where contexts part or end; the leaf used least recently goes whole."""

    def __init__(self, usable, block_tokens):
        self.usable, self.size, self.root, self.clock = usable, block_tokens, _Node(None, []), 0

    def request(self, path, tokens):
        full, pages = list(path)[: tokens // self.size], -(-tokens // self.size)
        if pages > self.usable:
            return 0
        self.clock += 1
        mine, hit = self.match(full[: (tokens - 1) // self.size])
        while sum(len(node.key) for node in self.nodes(self.root)) + pages - hit > self.usable:
            leaves = [node for node in self.nodes(self.root) if not node.children and node not in mine]
            leaf = min(leaves, key=lambda node: node.used)
            leaf.parent.children.remove(leaf)
        mine, held = self.match(full)
        if held < len(full):
            parent = mine[-1] if mine else self.root
            mine.append(_Node(parent, full[held:]))
            parent.children.append(mine[-1])
        for node in mine:
            node.used = self.clock
        return hit * self.size

    def match(self, keys):
        node, found, depth = self.root, [], 0
        while (child := next((each for each in node.children if keys[depth : depth + 1] == each.key[:1]), None)) is not None:
            same = sum(one == other for one, other in zip(child.key, keys[depth:], strict=False))
            node = child if same == len(child.key) else self.cut(child, same)
            found.append(node)
            depth += same
        return found, depth

    def cut(self, node, at):
        upper = _Node(node.parent, node.key[:at])
        upper.used, upper.children = node.used, [node]
        node.parent.children[node.parent.children.index(node)] = upper
        node.parent, node.key = upper, node.key[at:]
        return upper

    def nodes(self, node):
        for child in node.children:
            yield child
            yield from self.nodes(child)


class Lmcache:
    """Chunks by last use; of one request the tail before the head. Of a context larger than the memory its head is kept."""

    def __init__(self, usable, block_tokens):
        self.usable, self.size, self.order = usable, block_tokens, OrderedDict()

    def request(self, path, tokens):
        keys = list(path)[: tokens // self.size][: self.usable]
        hit = next((place for place, key in enumerate(keys) if key not in self.order), len(keys))
        for key in reversed(keys):
            self.order.pop(key, None)
            self.order[key] = None
        while len(self.order) > self.usable:
            self.order.popitem(last=False)
        return min(hit * self.size, tokens - 1)


class LfuChunks:
    """Uses and since when, per chunk; the fewest uses go, then the longest so."""

    def __init__(self, usable, block_tokens):
        self.usable, self.size, self.uses, self.clock = usable, block_tokens, {}, 0

    def request(self, path, tokens):
        keys = list(path)[: tokens // self.size]
        hit = next((place for place, key in enumerate(keys) if key not in self.uses), len(keys))
        for key in reversed(keys[:hit]):
            self.note(key, self.uses[key][0] + 1)
        for key in keys if self.usable else ():
            if key not in self.uses:
                if len(self.uses) == self.usable:
                    del self.uses[min(self.uses, key=self.uses.get)]
                self.note(key, 1)
        return min(hit * self.size, tokens - 1)

    def note(self, key, uses):
        self.clock += 1
        self.uses[key] = (uses, self.clock)


class Trie:
    """kvcache-simulator's trie: leaves go by last use, or by next use where `future` (request -> its keys) is given."""

    def __init__(self, usable, block_tokens, future=None):
        self.usable, self.size, self.future = usable, block_tokens, future
        self.key, self.parent, self.number, self.clock, self.now = {}, {}, {}, 0, 0

    def request(self, path, tokens):
        keys = list(path)
        for key, parent in zip(keys, [None, *keys], strict=False):
            self.parent[key] = parent
            self.number.setdefault(key, len(self.number))
        self.now += 1
        hit = next((place for place, key in enumerate(keys) if key not in self.key), len(keys))
        for key in keys[:hit]:
            self.touch(key)
        for key in keys[hit:] if self.usable else ():
            if len(self.key) == self.usable and not self.evict(key, keys[:hit]):
                break
            if self.parent[key] is not None and self.parent[key] not in self.key:
                break
            self.touch(key)
        return min(hit * self.size, tokens)

    def touch(self, key):
        self.clock += 1
        self.key[key] = self.clock if self.future is None else -self.next_use(key)

    def next_use(self, key):
        return next((place for place in range(self.now, len(self.future)) if key in self.future[place]), len(self.future))

    def evict(self, candidate, spared):
        leaves = [key for key in self.key if key not in spared and key not in {self.parent[other] for other in self.key}]
        victim = min(leaves, key=lambda key: (self.key[key], -self.number[key]), default=None)
        if victim is None or (self.future is not None and -self.key[victim] <= self.next_use(candidate)):
            return False
        del self.key[victim]
        return True


class Fifo:
    """Blocks in the order in which they came; nothing is renewed."""

    def __init__(self, usable, block_tokens):
        self.usable, self.size, self.order = usable, block_tokens, []

    def request(self, path, tokens):
        keys = list(path)
        hit = next((place for place, key in enumerate(keys) if key not in self.order), len(keys))
        for key in keys if self.usable else ():
            if key not in self.order:
                self.order = [*self.order, key][-self.usable :]
        return min(hit * self.size, tokens)


class Offloading:
    """A pool, and below it chunks by last use that are written through: those of this request do not go, and are renewed at its end. Where
    it loads some, those that the pool had are not of them, unless `heads_stay`."""

    def __init__(self, pool, usable, chunk_tokens, heads_stay):
        self.heads_stay = heads_stay
        self.pool, self.usable, self.size, self.order = pool, usable, chunk_tokens, OrderedDict()
        self.below = self.stored = self.dropped = 0

    def request(self, path, chunk_path, tokens):
        if -(-tokens // self.pool.size) > len(self.pool.free):
            return 0
        hit, keys = self.pool.request(path, tokens), list(chunk_path)
        held = hit // self.size
        while held < (tokens - 1) // self.size and keys[held] in self.order:
            held += 1
        more = held * self.size - hit
        more = more if more >= self.size else 0
        offered = keys
        if more and not self.heads_stay:
            offered, keys = keys[(hit + more) // self.size :], keys[hit // self.size :]
            for key in keys[: len(keys) - len(offered)]:
                self.order.move_to_end(key)
        missing = [key for key in offered if key not in self.order]
        going = [key for key in self.order if key not in offered]
        excess = max(0, len(self.order) + len(missing) - self.usable)
        if excess > len(going):
            self.dropped += len(missing)
        else:
            for key in going[:excess]:
                del self.order[key]
            self.order.update(dict.fromkeys(missing))
            self.stored += len(missing)
        for key in reversed(keys):
            if key in self.order:
                self.order.move_to_end(key)
        self.below += more
        return hit + more


class Windowed:
    """vLLM's pool with one group of full attention and some with a window, each block by its group and name."""

    def __init__(self, usable, block_tokens, window, windowed, dense):
        self.free, self.size, self.dense = OrderedDict.fromkeys(range(usable)), block_tokens, dense
        self.groups, self.reach = [None] + [window] * windowed, -(-(window - 1) // block_tokens)
        self.name, self.copies = {}, {}

    def request(self, path, tokens):
        full, most, total = list(path)[: tokens // self.size], (tokens - 1) // self.size, -(-tokens // self.size)
        hit = max(length for length in range(most + 1) if all(self.copies.get(name) for name in self.names(full, length)))
        got = {name: next(iter(self.copies[name])) for name in self.names(full, hit)}
        if len(got) + (total - hit) * len(self.groups) > len(self.free):
            return 0
        for block in got.values():
            del self.free[block]
        new = {(group, at): self.take() for group in range(len(self.groups)) for at in range(hit, total)}
        for (group, at), block in new.items():
            if at < len(full) and (self.groups[group] is None or self.dense or most - self.reach <= at < most):
                self.name[block] = (group, full[at])
                self.copies.setdefault((group, full[at]), OrderedDict())[block] = None
        for group in range(len(self.groups)):
            mine = [block for (of, _), block in [*got.items(), *new.items()] if of == group]
            for block in reversed(mine):
                self.free[block] = None
                self.free.move_to_end(block, last=block in self.name)
        return hit * self.size

    def names(self, full, length):
        """What must be there for a hit of so many blocks."""
        starts = [0 if window is None else max(0, length - self.reach) for window in self.groups]
        return [(group, name) for group, start in enumerate(starts) for name in full[start:length]]

    def take(self):
        block = self.free.popitem(last=False)[0]
        if block in self.name:
            del self.copies[self.name.pop(block)][block]
        return block


class SharedWindows:
    """vLLM's pool for requests that overlap, some groups with full attention and some with a window. Of each window a job has as many
    blocks as it needs, those with names in `named` and the others in `rest`; a named one that several use has another in `reserve` for each
    of the others. With `states` a block of a window's group is the state at its end, which a step writes that ends there, or a prompt's
    last, which also has one for its own end; what a step goes on from is left by the next."""

    def __init__(self, usable, size, window, full, windowed, step, states=False):
        self.free, self.users, self.size = OrderedDict.fromkeys(range(usable)), [0] * usable, size
        self.full, self.windowed = range(full), range(full, full + windowed)
        self.reach, self.in_step = (1, 3) if states else (self.blocks(window - 1), self.blocks(window - 1 + step) + 1)
        self.has, self.states = self.reach + (not states), states
        self.name, self.copies, self.reserve, self.owed = {}, {}, [], 0

    def blocks(self, tokens):
        return -(-tokens // self.size)

    def windows(self, tokens):
        return min(self.blocks(tokens), self.has)

    def ahead(self, tokens, hit, there):
        in_step = 2 if self.states and not hit and there in (0, self.blocks(tokens) - 1) else self.in_step
        return min(self.blocks(tokens) - max(0, hit - self.reach), in_step) - self.windows(tokens)

    def there(self, groups, path, start, stop):
        return all(self.copies.get((group, path[at])) for group in groups for at in range(start, stop))

    def hit(self, path, tokens):
        there = max(found for found in range((tokens - 1) // self.size + 1) if self.there(self.full, path, 0, found))
        return max(hit for hit in range(there + 1) if self.there(self.windowed, path, max(0, hit - self.reach), hit)), there

    def first(self, group, key):
        return next(iter(self.copies[group, key]))

    def taken(self, path, tokens, context):
        hit, there = self.hit(path, tokens)
        windows = self.windows(context) + self.ahead(tokens, hit, there)
        used = sum(self.users[self.first(group, path[at])] > 0 for group in self.full for at in range(hit))
        return len(self.full) * self.blocks(context) + len(self.windowed) * windows - used

    def take(self):
        block = self.free.popitem(last=False)[0]
        if block in self.name:
            name = self.name.pop(block)
            del self.copies[name][block]
        self.users[block] = 1
        return block

    def use(self, group, key):
        block = self.first(group, key)
        self.free.pop(block, None)
        self.users[block] += 1
        return block

    def leave(self, block):
        self.users[block] -= 1
        if not self.users[block]:
            self.free[block] = None
            self.free.move_to_end(block, last=block in self.name)

    def give(self, block, name):
        self.name[block] = name
        self.copies.setdefault(name, OrderedDict())[block] = None

    def begin(self, path, tokens, context):
        hit, there = self.hit(path, tokens)
        ends = [(tokens - 1) // self.size, *([there] if there > hit else [])]
        job = {"path": path, "context": context, "ends": ends, "known": hit, "last": ends[0]}
        job["full"] = {(group, at): self.use(group, path[at]) for group in self.full for at in range(hit)}
        job["named"], again = {}, 0
        for at in range(max(0, hit - self.reach), hit):
            for group in self.windowed:
                again += self.users[self.first(group, path[at])] > 0
                job["named"][group, at] = self.use(group, path[at])
        self.reserve += [self.take() for _ in range(again)]
        job["full"] |= {(group, at): self.take() for group in self.full for at in range(hit, self.blocks(context))}
        windows = len(self.windowed) * (self.windows(context) + self.ahead(tokens, hit, there))
        job["rest"] = [self.take() for _ in range(windows - len(job["named"]))]
        return job

    def computed(self, job, tokens):
        path, stop = job["path"], tokens // self.size
        for (group, at), block in job["full"].items():
            if job["known"] <= at < stop:
                self.give(block, (group, path[at]))
        for at in range(job["known"], stop):
            if any(end - self.reach <= at < end for end in job["ends"]):
                for group in self.windowed:
                    if not job["rest"]:  # settled below: a window has left others by then
                        job["rest"].append(len(self.users))
                        self.users.append(1)
                        self.owed += 1
                    job["named"][group, at] = job["rest"].pop()
                    self.give(job["named"][group, at], (group, path[at]))
                if self.states and [at + 1] == job["ends"][1:]:
                    self.next_step(job, at)
        job["known"] = max(job["known"], stop)

    def next_step(self, job, at):
        """After one that ended at a junction: it writes the state before the prompt's end, if that is another, and the one at its end."""
        self.leave_windows(job, [place for place in job["named"] if place[1] < at])
        writes = len(self.windowed) * (1 + (at + 1 < job["last"]))
        for _ in range(len(job["rest"]) - writes):
            self.leave(job["rest"].pop())
        job["rest"] += [self.take() for _ in range(writes - len(job["rest"]))]

    def decodes(self, job, tokens):
        """Its windows have left what is before the last blocks of so many tokens."""
        first = self.blocks(tokens) - self.has
        self.leave_windows(job, [place for place in job["named"] if place[1] < first])
        more = len(job["rest"]) + len(job["named"]) - len(self.windowed) * self.windows(job["context"])
        for _ in range(more):
            self.leave(job["rest"].pop())
        while self.owed:
            self.take()
            self.owed -= 1
        job["rest"] += [self.take() for _ in range(-more)]

    def begins_a_block(self):
        """An answer does: there are two states of it, for a step."""
        for block in [self.take() for _ in range(min(len(self.windowed), len(self.free)))]:
            self.leave(block)

    def leave_windows(self, job, places):
        """From their ends, one group's after the other's."""
        for place in sorted(places, key=lambda each: (each[0], -each[1])):
            block = job["named"].pop(place)
            self.leave(block)
            if self.users[block]:
                self.leave(self.reserve.pop())

    def end(self, job):
        for group in self.full:
            for block in reversed([block for (of, _), block in job["full"].items() if of == group]):
                self.leave(block)
        self.leave_windows(job, [*job["named"]])
        for block in job["rest"]:
            self.leave(block)
