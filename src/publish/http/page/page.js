'use strict';
fetch('/page/state').then(answer => answer.json()).then(state => {
  document.getElementById('state').textContent = JSON.stringify(state, null, 2);
});
