// A value that components follow: the smallest store that the console needs.

import { useEffect, useState } from "./vendor/htm-preact.js";

export function store(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      value = next;
      for (const listener of listeners) listener(value);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The value of a store; the component renders again when it changes. */
export function useStore(followed) {
  const [, render] = useState(0);
  useEffect(() => followed.subscribe(() => render((n) => n + 1)), [followed]);
  return followed.get();
}
