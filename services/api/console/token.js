// The operator's token.
//
// It is stored in sessionStorage: a reload during an incident keeps it, other tabs do not get
// it, and it is gone when the tab is closed. localStorage would keep it on the disk. It is
// never shown, and never part of a URL.

const KEY = "reading-sessions-token";

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  clear: () => sessionStorage.removeItem(KEY),
};
