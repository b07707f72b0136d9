// Runs before the first paint, so that neither the other theme nor the other language flashes up. A classic script: modules wait.
(() => {
  "use strict";
  const query = new URLSearchParams(location.search);
  const stored = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // Storage may be forbidden; then the system's choice holds.
    }
  };
  const theme = query.get("theme") ?? stored("hongbao.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  const language = query.get("lang") ?? stored("hongbao.lang") ?? navigator.language ?? "en";
  document.documentElement.lang = language.toLowerCase().startsWith("zh") ? "zh-Hans" : "en";
})();
